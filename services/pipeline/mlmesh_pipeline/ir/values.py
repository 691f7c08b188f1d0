"""Parameter values: their types, how they turn from and into JSON, and how one type is made of another."""

import json
import math
from typing import Any

from google.protobuf import json_format

from mlmesh_pipeline.ir.proto import ParameterType, PrimitiveType

_OF_PRIMITIVE = {
    PrimitiveType.INT: ParameterType.NUMBER_INTEGER,
    PrimitiveType.DOUBLE: ParameterType.NUMBER_DOUBLE,
    PrimitiveType.STRING: ParameterType.STRING,
}


class WrongType(ValueError):
    """A value is not of its parameter's type; the message says what was expected."""


def parameter_type(spec: Any) -> int:
    """Gives the type of a parameter spec; specs of old SDKs have a primitive type instead."""
    found: int = spec.parameter_type or _OF_PRIMITIVE.get(spec.type, 0)
    return found


def type_name(kind: int) -> str:
    """Names a parameter type as the IR does."""
    return str(ParameterType.Name(kind))


def to_python(value: Any) -> Any:
    """Gives a `google.protobuf.Value` as Python; whole numbers stay floats, since the message knows no others."""
    return json_format.MessageToDict(value) if value.WhichOneof("kind") else None


def coerce(value: Any, kind: int) -> Any:
    """Makes `value` one of the type `kind`, as KFP's driver does.

    Strings take any value (as JSON); numbers take the text of a number; lists and structs take JSON text.

    Raises:
        WrongType: It cannot be one.
    """
    if value is None:
        return None
    if kind == ParameterType.NUMBER_INTEGER:
        return _integer(value)
    if kind == ParameterType.NUMBER_DOUBLE:
        return _double(value)
    if kind == ParameterType.STRING:
        return value if isinstance(value, str) else json.dumps(whole(value))
    if kind == ParameterType.BOOLEAN:
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        return _instance(value, bool, "a boolean")
    if kind == ParameterType.LIST:
        return _instance(_parsed(value), list, "a list")
    if kind in {ParameterType.STRUCT, ParameterType.TASK_FINAL_STATUS, ParameterType.TASK_CONFIG}:
        return _instance(_parsed(value), dict, "a struct")
    return value


def check_exact(value: Any, kind: int) -> Any:
    """Makes a submitted value one of the type `kind`, taking nothing that is not plainly one.

    Raises:
        WrongType: It is not one.
    """
    if kind == ParameterType.STRING:
        return _instance(value, str, "a string")
    if kind in {ParameterType.LIST, ParameterType.STRUCT, ParameterType.BOOLEAN} and isinstance(value, str):
        raise WrongType(f"must be {type_name(kind)}, got a string")
    if kind in {ParameterType.NUMBER_INTEGER, ParameterType.NUMBER_DOUBLE} and isinstance(value, str):
        raise WrongType(f"must be {type_name(kind)}, got a string")
    return coerce(value, kind)


def whole(value: Any) -> Any:
    """Turns floats without a fraction into integers, at any depth: JSON from protobuf has floats only."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise WrongType("must be NUMBER_INTEGER, got a boolean")
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as error:
            raise WrongType("must be NUMBER_INTEGER, got text that is no integer") from error
    if isinstance(value, float) and not value.is_integer():
        raise WrongType(f"must be NUMBER_INTEGER, got {value}")
    if isinstance(value, int | float):
        return int(value)
    raise WrongType(f"must be NUMBER_INTEGER, got a {_kind_of(value)}")


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise WrongType(f"must be NUMBER_DOUBLE, got a {_kind_of(value)}")
    try:
        number = float(value)
    except ValueError as error:
        raise WrongType("must be NUMBER_DOUBLE, got text that is no number") from error
    if not math.isfinite(number):
        raise WrongType("must be a finite number")
    return number


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return whole(value)
    try:
        return json.loads(value)
    except ValueError as error:
        raise WrongType("must be JSON") from error


def _instance(value: Any, wanted: type, words: str) -> Any:
    if not isinstance(value, wanted):
        raise WrongType(f"must be {words}, got a {_kind_of(value)}")
    return value


def _kind_of(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "struct"}
    return names.get(type(value), "value")
