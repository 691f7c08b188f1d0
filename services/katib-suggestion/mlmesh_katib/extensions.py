"""What experiments may say beyond Katib's manifest: further objectives, constraints, conditions, a warm start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import check_name

from mlmesh_katib.activation import Activation, in_order
from mlmesh_katib.constraint import Constraint
from mlmesh_katib.fields import as_count, as_list, as_metric, as_object, as_scalar, as_text, is_number
from mlmesh_katib.objective import Target
from mlmesh_katib.space import Kind, Parameter, Value

MAX_OBJECTIVES = 10
MAX_CONSTRAINTS = 50
MAX_WARM_EXPERIMENTS = 20
MAX_WARM_TRIALS = 1000
DEFAULT_WARM_TRIALS = 200


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Which trials of earlier experiments are known from the beginning.

    Attributes:
        experiments: (namespace, name) of each.
        max_trials: Most trials, of all of them together.
        field: Path of the list, for errors.
    """

    experiments: tuple[tuple[str, str], ...]
    max_trials: int
    field: str


def parse_targets(objective: Mapping[str, Any], where: str) -> tuple[Target, ...]:
    """Reads `additionalObjectives` of an objective: `{type, objectiveMetricName, goal?}` each.

    Args:
        objective: Of the manifest.
        where: Its path, for errors.

    Raises:
        InvalidArgument: One is wrong, or there twice.
    """
    seen = {objective.get("objectiveMetricName")}
    found = []
    path = f"{where}.additionalObjectives"
    items = as_list(objective.get("additionalObjectives", []), path)
    if len(items) >= MAX_OBJECTIVES:
        raise InvalidArgument(f"must hold at most {MAX_OBJECTIVES - 1} objectives", field=path)
    for index, item in enumerate(items):
        place = f"{path}[{index}]"
        target = as_object(item, place)
        if target.get("type") not in ("minimize", "maximize"):
            raise InvalidArgument("must be minimize or maximize", field=f"{place}.type")
        metric = as_metric(target.get("objectiveMetricName"), f"{place}.objectiveMetricName")
        if metric in seen:
            raise InvalidArgument(f"{metric!r} is an objective already", field=f"{place}.objectiveMetricName")
        seen.add(metric)
        found.append(Target(metric, target["type"] == "maximize", _bound(target, "goal", place)))
    return tuple(found)


def parse_constraints(objective: Mapping[str, Any], where: str) -> tuple[Constraint, ...]:
    """Reads `constraints` of an objective: `{metricName, min?, max?}` each, at least one bound.

    Args:
        objective: Of the manifest.
        where: Its path, for errors.

    Raises:
        InvalidArgument: One is wrong.
    """
    path = f"{where}.constraints"
    items = as_list(objective.get("constraints", []), path)
    if len(items) > MAX_CONSTRAINTS:
        raise InvalidArgument(f"must hold at most {MAX_CONSTRAINTS} constraints", field=path)
    found = []
    for index, item in enumerate(items):
        place = f"{path}[{index}]"
        constraint = as_object(item, place)
        metric = as_metric(constraint.get("metricName"), f"{place}.metricName")
        low, high = _bound(constraint, "min", place), _bound(constraint, "max", place)
        if low is None and high is None:
            raise InvalidArgument("must have min or max", field=place)
        if low is not None and high is not None and low > high:
            raise InvalidArgument(f"must not be above max ({high:g}), got {low:g}", field=f"{place}.min")
        found.append(Constraint(metric, low, high))
    return tuple(found)


def _bound(item: Mapping[str, Any], key: str, place: str) -> float | None:
    value = item.get(key)
    if value is not None and not is_number(value):
        raise InvalidArgument("must be a number", field=f"{place}.{key}")
    return None if value is None else float(value)


def parse_activations(items: Sequence[Any], parameters: Sequence[Parameter], where: str) -> tuple[Activation, ...]:
    """Reads `activeWhen: {parameter, values}` of parameters: what to give to `make_space`.

    Args:
        items: `spec.parameters` of the manifest.
        parameters: The same, made.
        where: Their path, for errors.

    Returns:
        Parents before their children; empty: all parameters are always there.

    Raises:
        InvalidArgument: A name or a value is unknown, or parameters hang on each other in a circle.
    """
    places = {parameter.name: index for index, parameter in enumerate(parameters)}
    found = []
    for index, item in enumerate(items):
        if item.get("activeWhen") is None:
            continue
        path = f"{where}[{index}].activeWhen"
        rule = as_object(item["activeWhen"], path)
        name = as_text(rule.get("parameter"), f"{path}.parameter")
        if name not in places:
            raise InvalidArgument(f"there is no parameter {name!r}", field=f"{path}.parameter")
        parent = parameters[places[name]]
        if parent.kind is Kind.DOUBLE:
            raise InvalidArgument(
                f"must be categorical, discrete or int; {name!r} is double", field=f"{path}.parameter"
            )
        values = as_list(rule.get("values"), f"{path}.values")
        if not values:
            raise InvalidArgument("must hold a value", field=f"{path}.values")
        allowed = set()
        for number, value in enumerate(values):
            text = as_scalar(value, f"{path}.values[{number}]")
            read = parent.parse(text)
            if read is None or not _is_on_step(parent, read):
                raise InvalidArgument(f"{text[:80]!r} is no value of {name!r}", field=f"{path}.values[{number}]")
            allowed.add(read)
        found.append(Activation(index, places[name], frozenset(allowed)))
    ordered = in_order(found)
    if ordered is None:
        first = min(rule.child for rule in found)
        raise InvalidArgument(
            "parameters must not hang on each other in a circle", field=f"{where}[{first}].activeWhen"
        )
    return ordered


def _is_on_step(parameter: Parameter, value: Value) -> bool:
    return parameter.step is None or (int(value) - int(parameter.low)) % int(parameter.step) == 0


def parse_warm_start(given: Any, where: str) -> WarmStart | None:
    """Reads `warmStart: {experiments: [NAME, NAMESPACE/NAME, ...], maxTrials?}`.

    Args:
        given: Of the manifest; None: there is none.
        where: Its path, for errors.

    Returns:
        The namespace of an experiment is empty where the manifest names none: that of the new experiment is meant.

    Raises:
        InvalidArgument: It is wrong.
    """
    if given is None:
        return None
    start = as_object(given, where)
    path = f"{where}.experiments"
    items = as_list(start.get("experiments"), path)
    if not 1 <= len(items) <= MAX_WARM_EXPERIMENTS:
        raise InvalidArgument(f"must hold 1 to {MAX_WARM_EXPERIMENTS} experiments", field=path)
    experiments = []
    for index, item in enumerate(items):
        namespace, _, name = as_text(item, f"{path}[{index}]").rpartition("/")
        check_name(name, f"{path}[{index}]")
        if namespace:
            check_name(namespace, f"{path}[{index}]")
        experiments.append((namespace, name))
    most = as_count(start.get("maxTrials"), f"{where}.maxTrials", default=DEFAULT_WARM_TRIALS, smallest=1)
    if most > MAX_WARM_TRIALS:
        raise InvalidArgument(f"must be at most {MAX_WARM_TRIALS}", field=f"{where}.maxTrials")
    return WarmStart(tuple(experiments), most, path)
