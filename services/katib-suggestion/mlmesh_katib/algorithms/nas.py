"""Katib's nasConfig: the layers of a network and the operations that each of them may be."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import InvalidArgument

MAX_LAYERS = 100
MAX_OPERATIONS = 1000
_FIELD = "nasConfig"
_RANGES = ("int", "double")
_LISTS = ("categorical", "discrete")
_SKIP = "skip_connection"
"""An operation without parameters: Katib's own examples of darts name it alone."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a layer, its parameters chosen.

    Attributes:
        kind: Katib's operationType.
        parameters: Name → value.
    """

    kind: str
    parameters: Mapping[str, str | int | float]


def layers(nas: Mapping[str, Any]) -> int:
    """Reads graphConfig.numLayers.

    Raises:
        InvalidArgument: It is missing, or no whole number from 1 to MAX_LAYERS.
    """
    number = graph_config(nas).get("numLayers") or 0
    field = f"{_FIELD}.graphConfig.numLayers"
    if not number:
        raise InvalidArgument("Missing NumLayers in GraphConfig", field=field)
    if not _is_whole(number) or not 1 <= number <= MAX_LAYERS:
        raise InvalidArgument(f"NumLayers in GraphConfig must be 1 to {MAX_LAYERS}", field=field)
    return int(number)


def sizes(nas: Mapping[str, Any], name: str) -> list[int]:
    """Reads graphConfig.inputSizes or outputSizes.

    Raises:
        InvalidArgument: It is missing, or no list of whole numbers.
    """
    found = graph_config(nas).get(name) or []
    field = f"{_FIELD}.graphConfig.{name}"
    if not found:
        raise InvalidArgument(f"Missing {name[0].upper()}{name[1:]} in GraphConfig", field=field)
    if not isinstance(found, list) or not all(_is_whole(size) for size in found):
        raise InvalidArgument(f"{name} in GraphConfig must be a list of whole numbers", field=field)
    return [int(size) for size in found]


def graph_config(nas: Mapping[str, Any]) -> Mapping[str, Any]:
    """Reads graphConfig; empty where there is none.

    Raises:
        InvalidArgument: It is no object.
    """
    graph = nas.get("graphConfig") or {}
    if not isinstance(graph, Mapping):
        raise InvalidArgument("GraphConfig must be an object", field=f"{_FIELD}.graphConfig")
    return graph


def check_operations(nas: Mapping[str, Any]) -> None:
    """Checks all operations, as Katib does and with its messages.

    Raises:
        InvalidArgument: Something of one is missing or wrong.
    """
    for index, operation in enumerate(_operations(nas)):
        field = f"{_FIELD}.operations[{index}]"
        if not _is_text(operation.get("operationType")):
            raise InvalidArgument(f"Missing operationType in Operation {index}", field=f"{field}.operationType")
        parameters = operation.get("parameters") or []
        if not isinstance(parameters, list) or not (parameters or operation["operationType"] == _SKIP):
            raise InvalidArgument(f"Missing ParameterConfigs in Operation {index}", field=f"{field}.parameters")
        for number, parameter in enumerate(parameters):
            path = f"{field}.parameters[{number}]"
            if not isinstance(parameter, Mapping) or not _is_text(parameter.get("name")):
                raise InvalidArgument(f"Missing Name in ParameterConfig {number} of Operation {index}", field=path)
            _check_parameter(parameter, path)


def operations(nas: Mapping[str, Any]) -> list[Operation]:
    """Gives all operations with all combinations of their parameters, in Katib's order: the last parameter fastest.

    Args:
        nas: Checked. As in Katib's checks a range may be written either way round.

    Raises:
        InvalidArgument: There are none, or too many.
    """
    found: list[Operation] = []
    for operation in _operations(nas):
        parameters = operation.get("parameters") or []
        values = [_values(parameter) for parameter in parameters]
        if len(found) + math.prod(len(some) for some in values) > MAX_OPERATIONS:
            message = f"operations must have at most {MAX_OPERATIONS} combinations of their parameters"
            raise InvalidArgument(message, field=f"{_FIELD}.operations")
        names = [parameter["name"] for parameter in parameters]
        for chosen in itertools.product(*values):
            found.append(Operation(operation["operationType"], dict(zip(names, chosen, strict=True))))
    if not found:
        raise InvalidArgument("operations must hold at least one operation", field=f"{_FIELD}.operations")
    return found


def lists(nas: Mapping[str, Any]) -> list[tuple[str, Sequence[str]]]:
    """Gives for each operation its type and the list of its first parameter; empty where that has none."""
    found: list[tuple[str, Sequence[str]]] = []
    for operation in _operations(nas):
        first: Mapping[str, Any] = next(iter(operation.get("parameters") or ()), {"feasibleSpace": {}})
        found.append((operation["operationType"], [str(value) for value in first["feasibleSpace"].get("list") or ()]))
    return found


def dump(value: Any) -> str:
    """Writes a value as trials of Katib's architecture searches read it: JSON with single quotes."""
    return json.dumps(value).replace('"', "'")


def _operations(nas: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = nas.get("operations") or []
    if not isinstance(found, list) or not all(isinstance(operation, Mapping) for operation in found):
        raise InvalidArgument("operations must be a list of objects", field=f"{_FIELD}.operations")
    return found


def _check_parameter(parameter: Mapping[str, Any], field: str) -> None:
    name, kind = parameter["name"], parameter.get("parameterType")
    if kind not in (*_RANGES, *_LISTS):
        raise InvalidArgument(f"Missing ParameterType in ParameterConfig {name}", field=f"{field}.parameterType")
    space = parameter.get("feasibleSpace")
    field = f"{field}.feasibleSpace"
    space = space if isinstance(space, Mapping) else {}
    if kind in _LISTS:
        values = space.get("list")
        if not isinstance(values, list) or not values:
            raise InvalidArgument(f"Missing List in ParameterConfig.feasibleSpace of {name}", field=f"{field}.list")
        return
    if not _given(space, "min") and not _given(space, "max"):
        raise InvalidArgument(f"Missing Max and Min in ParameterConfig.feasibleSpace of {name}", field=field)
    low, high = (_number(space, end, kind, name, field) for end in ("min", "max"))
    step = _number(space, "step", kind, name, field) if kind == "double" or _given(space, "step") else 1
    if step <= 0:
        raise InvalidArgument(
            f"Step parameter should be > 0 in ParameterConfig.feasibleSpace of {name}", field=f"{field}.step"
        )
    if abs(high - low) / step > MAX_OPERATIONS:
        raise InvalidArgument(f"at most {MAX_OPERATIONS} steps in ParameterConfig.feasibleSpace of {name}", field=field)


def _values(parameter: Mapping[str, Any]) -> Sequence[str | int | float]:
    kind, space = parameter["parameterType"], parameter["feasibleSpace"]
    if kind in _LISTS:
        return [str(value) for value in space["list"]]
    ends = sorted(float(space[end]) for end in ("min", "max"))
    step = float(space["step"]) if _given(space, "step") else 1.0
    count = math.floor((ends[1] - ends[0]) / step + 1e-9) + 1
    values = [round(ends[0] + index * step, 12) for index in range(count)]
    return [int(value) for value in values] if kind == "int" else values


def _number(space: Mapping[str, Any], name: str, kind: str, parameter: str, field: str) -> float:
    try:
        number = float(space.get(name) or 0) if name == "step" else float(space.get(name, ""))
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or (kind == "int" and not number.is_integer()):
        wanted = "a whole number" if kind == "int" else "a number"
        message = f"failed to validate ParameterConfig.feasibleSpace of {parameter}: {name} must be {wanted}"
        raise InvalidArgument(message, field=f"{field}.{name}")
    return number


def _given(space: Mapping[str, Any], name: str) -> bool:
    return space.get(name) not in (None, "")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: Any) -> bool:
    """Tells whether it is a whole number; a manifest that came as a protobuf Struct has 3.0 for 3."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
