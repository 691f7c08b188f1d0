"""The search space of `mlmesh.tune`, in the words of `kubeflow.katib.search`."""

import builtins
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Choice = str | builtins.int | float | bool | None


@dataclass(frozen=True)
class Parameter:
    """One parameter of a search space; made by `double`, `int`, `discrete` and `categorical`.

    Attributes:
        kind: Katib's parameterType.
        feasible_space: Katib's feasibleSpace.
        choices: Text of a value, as the trial gets it → the value that the objective gets; empty: it is a number.
        active_when: See `double`.
    """

    kind: str
    feasible_space: Mapping[str, Any]
    choices: Mapping[str, Choice]
    active_when: Mapping[str, Sequence[Choice]] | None = None

    def manifest(self, name: str) -> dict[str, Any]:
        """Gives it as an Experiment has it."""
        found: dict[str, Any] = {
            "name": name,
            "parameterType": self.kind,
            "feasibleSpace": dict(self.feasible_space),
        }
        if self.active_when is not None:
            if len(self.active_when) != 1:
                raise ValueError(f"parameter {name!r}: active_when must name one other parameter and its values")
            ((parent, values),) = self.active_when.items()
            found["activeWhen"] = {"parameter": parent, "values": [_text(value) for value in values]}
        return found


def double(
    min: float,
    max: float,
    step: float | None = None,
    *,
    distribution: str | None = None,
    active_when: Mapping[str, Sequence[Choice]] | None = None,
) -> Parameter:
    """A number between `min` and `max`.

    Args:
        min: Smallest value.
        max: Largest value.
        step: Distance of values; None: all between.
        distribution: `uniform` (None means it), `logUniform`, `normal`, `logNormal`.
        active_when: `{PARAMETER: [VALUE, ...]}`: it exists only where another parameter has one of these values, and is
            not among the parameters of other trials.
    """
    return _range("double", min, max, step, distribution, active_when)


def int(
    min: builtins.int,
    max: builtins.int,
    step: builtins.int | None = None,
    *,
    distribution: str | None = None,
    active_when: Mapping[str, Sequence[Choice]] | None = None,
) -> Parameter:
    """A whole number between `min` and `max`; arguments as of `double`."""
    return _range("int", min, max, step, distribution, active_when)


def discrete(list: Sequence[float], *, active_when: Mapping[str, Sequence[Choice]] | None = None) -> Parameter:
    """One of some numbers, whose order means something.

    Args:
        list: The numbers.
        active_when: As of `double`.
    """
    return Parameter("discrete", {"list": [_text(value) for value in list]}, {}, active_when)


def categorical(list: Sequence[Choice], *, active_when: Mapping[str, Sequence[Choice]] | None = None) -> Parameter:
    """One of some values without an order; the objective gets them as they are here.

    Args:
        list: Texts, numbers, booleans, None.
        active_when: As of `double`.

    Raises:
        ValueError: Two of them look the same (1 and "1"), or one is of another type.
    """
    choices = {_text(value): value for value in list}
    if len(choices) != len(list):
        raise ValueError(f"the values must differ as texts, too; got {list!r}")
    return Parameter("categorical", {"list": [*choices]}, choices, active_when)


def _range(
    kind: str,
    low: float,
    high: float,
    step: float | None,
    distribution: str | None,
    active_when: Mapping[str, Sequence[Choice]] | None,
) -> Parameter:
    space = {"min": _text(low), "max": _text(high)}
    if step is not None:
        space["step"] = _text(step)
    if distribution is not None:
        space["distribution"] = distribution
    return Parameter(kind, space, {}, active_when)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | builtins.int | float):
        return json.dumps(value)
    try:
        return json.dumps(value.item())  # a number of NumPy
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"expected text, a number, a boolean or None; got {value!r}") from None
