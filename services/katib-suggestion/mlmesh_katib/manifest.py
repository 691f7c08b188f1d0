"""Katib Experiment manifests (kubeflow.org/v1beta1), checked, as plain values."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.names import check_name

from mlmesh_katib.algorithms import ALGORITHMS, Question
from mlmesh_katib.objective import STRATEGIES, Objective
from mlmesh_katib.space import Space, make_parameter, make_space
from mlmesh_katib.template import TrialTemplate, parse_template

API_VERSION = "kubeflow.org/v1beta1"
MAX_NAME = 40  # as Katib: the names of trials and pods are made of it
DEFAULT_PARALLEL = 3
MAX_METRIC_NAME = 200
MAX_FILTERS = 20
MAX_FILTER_LENGTH = 500
# Katib has these; they belong to a later state of this service, and are refused rather than ignored.
_LATER = ("nasConfig", "earlyStopping")


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """What an experiment is to do.

    Attributes:
        max_trials: Most trials.
        max_failed: Failed trials beyond which the experiment fails; None: no limit.
        parallel: Trials at once.
        filters: Of the metrics collector.
    """

    name: str
    objective: Objective
    algorithm: str
    settings: Mapping[str, str]
    space: Space
    template: TrialTemplate
    max_trials: int
    max_failed: int | None
    parallel: int
    filters: tuple[str, ...]


def parse_manifest(manifest: Mapping[str, Any], max_trials: int) -> ExperimentSpec:
    """Checks a manifest.

    Args:
        manifest: As given by the user.
        max_trials: Largest maxTrialCount, also taken where none is given.

    Raises:
        InvalidArgument: A field is missing or wrong; the message names it.
        FailedPrecondition: It asks for something that is not served.
    """
    if manifest.get("apiVersion") != API_VERSION:
        raise InvalidArgument(f"must be {API_VERSION}", field="manifest.apiVersion")
    if manifest.get("kind") != "Experiment":
        raise InvalidArgument("must be Experiment", field="manifest.kind")
    metadata = as_object(manifest.get("metadata"), "manifest.metadata")
    name = check_name(
        as_text(metadata.get("name"), "manifest.metadata.name"), "manifest.metadata.name", max_length=MAX_NAME
    )
    where = "manifest.spec"
    spec = as_object(manifest.get("spec"), where)
    for key in _LATER:
        if spec.get(key):
            raise FailedPrecondition(f"{where}.{key} is not served yet")
    objective = _objective(as_object(spec.get("objective"), f"{where}.objective"), f"{where}.objective")
    space = _space(as_list(spec.get("parameters"), f"{where}.parameters"), f"{where}.parameters")
    most = as_count(spec.get("maxTrialCount"), f"{where}.maxTrialCount", default=max_trials, smallest=1)
    if most > max_trials:
        raise InvalidArgument(f"must be at most {max_trials}", field=f"{where}.maxTrialCount")
    parallel = as_count(
        spec.get("parallelTrialCount"), f"{where}.parallelTrialCount", default=min(DEFAULT_PARALLEL, most), smallest=1
    )
    if parallel > most:
        raise InvalidArgument(f"must not be above maxTrialCount ({most})", field=f"{where}.parallelTrialCount")
    failed = None
    if spec.get("maxFailedTrialCount") is not None:
        failed = as_count(spec["maxFailedTrialCount"], f"{where}.maxFailedTrialCount", default=0, smallest=0)
        if failed > most:
            raise InvalidArgument(f"must not be above maxTrialCount ({most})", field=f"{where}.maxFailedTrialCount")
    algorithm, settings = _algorithm(as_object(spec.get("algorithm"), f"{where}.algorithm"), f"{where}.algorithm")
    question = Question(space, settings, (), max_trial_count=most if spec.get("maxTrialCount") is not None else 0)
    ALGORITHMS[algorithm].validate(question)
    template = parse_template(
        as_object(spec.get("trialTemplate"), f"{where}.trialTemplate"),
        [parameter.name for parameter in space.parameters],
        f"{where}.trialTemplate",
    )
    filters = _filters(spec.get("metricsCollectorSpec"), f"{where}.metricsCollectorSpec")
    return ExperimentSpec(name, objective, algorithm, settings, space, template, most, failed, parallel, filters)


def _objective(objective: Mapping[str, Any], where: str) -> Objective:
    kind = objective.get("type")
    if kind not in ("minimize", "maximize"):
        raise InvalidArgument("must be minimize or maximize", field=f"{where}.type")
    metric = _metric(objective.get("objectiveMetricName"), f"{where}.objectiveMetricName")
    goal = objective.get("goal")
    if goal is not None and not _is_number(goal):
        raise InvalidArgument("must be a number", field=f"{where}.goal")
    additional = [
        _metric(name, f"{where}.additionalMetricNames[{index}]")
        for index, name in enumerate(
            as_list(objective.get("additionalMetricNames", []), f"{where}.additionalMetricNames")
        )
    ]
    if metric in additional:
        raise InvalidArgument(f"must not hold the objective {metric!r}", field=f"{where}.additionalMetricNames")
    strategies = {}
    for index, item in enumerate(as_list(objective.get("metricStrategies", []), f"{where}.metricStrategies")):
        path = f"{where}.metricStrategies[{index}]"
        strategy = as_object(item, path)
        if strategy.get("value") not in STRATEGIES:
            raise InvalidArgument(f"must be one of {', '.join(STRATEGIES)}", field=f"{path}.value")
        strategies[as_text(strategy.get("name"), f"{path}.name")] = str(strategy["value"])
    return Objective(metric, kind == "maximize", None if goal is None else float(goal), tuple(additional), strategies)


def _algorithm(algorithm: Mapping[str, Any], where: str) -> tuple[str, dict[str, str]]:
    name = as_text(algorithm.get("algorithmName"), f"{where}.algorithmName")
    if name not in ALGORITHMS:
        raise InvalidArgument(
            f"unknown algorithm name {name}; served are {', '.join(sorted(ALGORITHMS))}", field=f"{where}.algorithmName"
        )
    settings = {}
    for index, item in enumerate(as_list(algorithm.get("algorithmSettings", []), f"{where}.algorithmSettings")):
        path = f"{where}.algorithmSettings[{index}]"
        setting = as_object(item, path)
        settings[as_text(setting.get("name"), f"{path}.name")] = _scalar(setting.get("value"), f"{path}.value")
    return name, settings


def _space(parameters: Sequence[Any], where: str) -> Space:
    made = []
    for index, item in enumerate(parameters):
        path = f"{where}[{index}]"
        parameter = as_object(item, path)
        feasible = as_object(parameter.get("feasibleSpace"), f"{path}.feasibleSpace")
        made.append(
            make_parameter(
                as_text(parameter.get("name"), f"{path}.name"),
                str(parameter.get("parameterType", "")),
                low=_scalar(feasible.get("min", ""), f"{path}.feasibleSpace.min"),
                high=_scalar(feasible.get("max", ""), f"{path}.feasibleSpace.max"),
                step=_scalar(feasible.get("step", ""), f"{path}.feasibleSpace.step"),
                values=[
                    _scalar(value, f"{path}.feasibleSpace.list")
                    for value in as_list(feasible.get("list", []), f"{path}.feasibleSpace.list")
                ],
                distribution=str(feasible.get("distribution", "")),
                field=path,
            )
        )
    return make_space(made, where)


def _filters(collector: Any, where: str) -> tuple[str, ...]:
    if collector is None:
        return ()
    spec = as_object(collector, where)
    kind = as_object(spec.get("collector", {"kind": "StdOut"}), f"{where}.collector").get("kind", "StdOut")
    if kind != "StdOut":
        raise FailedPrecondition(f"{where}.collector.kind: {kind} is not served yet; StdOut is")
    source = as_object(spec.get("source", {}), f"{where}.source")
    path = f"{where}.source.filter.metricsFormat"
    formats = as_list(as_object(source.get("filter", {}), f"{where}.source.filter").get("metricsFormat", []), path)
    if len(formats) > MAX_FILTERS:
        raise InvalidArgument(f"must hold at most {MAX_FILTERS} expressions", field=path)
    found = []
    for index, item in enumerate(formats):
        text = as_text(item, f"{path}[{index}]")
        try:
            groups = re.compile(text[:MAX_FILTER_LENGTH]).groups if len(text) <= MAX_FILTER_LENGTH else 0
        except (re.error, RecursionError, OverflowError) as error:
            raise InvalidArgument(f"must be a regular expression: {error}", field=f"{path}[{index}]") from error
        if groups < 2:
            raise InvalidArgument(
                f"must have two groups, name and value, and at most {MAX_FILTER_LENGTH} characters",
                field=f"{path}[{index}]",
            )
        found.append(text)
    return tuple(found)


def as_object(value: Any, field: str) -> Mapping[str, Any]:
    """Gives an object, or raises InvalidArgument."""
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be an object", field=field)
    return value


def as_list(value: Any, field: str) -> Sequence[Any]:
    """Gives a list, or raises InvalidArgument."""
    if not isinstance(value, list):
        raise InvalidArgument("must be a list", field=field)
    return value


def as_text(value: Any, field: str) -> str:
    """Gives a non-empty text, or raises InvalidArgument."""
    if not isinstance(value, str) or not value:
        raise InvalidArgument("must be a non-empty string", field=field)
    return value


def as_count(value: Any, field: str, *, default: int, smallest: int) -> int:
    """Gives a whole number, or raises InvalidArgument."""
    if value is None:
        return default
    if not _is_number(value) or value != int(value) or value < smallest:
        raise InvalidArgument(f"must be a whole number of at least {smallest}", field=field)
    return int(value)


def _metric(value: Any, field: str) -> str:
    name = as_text(value, field)
    if len(name) > MAX_METRIC_NAME:
        raise InvalidArgument(f"must be at most {MAX_METRIC_NAME} characters", field=field)
    return name


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _scalar(value: Any, field: str) -> str:
    """Katib's manifests quote numbers; those that do not are understood as well."""
    if isinstance(value, str):
        return value
    if not _is_number(value):
        raise InvalidArgument("must be a string", field=field)
    return str(int(value)) if float(value).is_integer() else str(value)
