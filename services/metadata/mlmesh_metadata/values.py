"""Property values as MLMD keeps them in columns."""

import base64
import contextlib
import math
from typing import Any, TypeAlias

from google.protobuf import any_pb2, struct_pb2
from google.protobuf.message import DecodeError
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import Node

_STRUCT_PREFIX = "mlmd-struct::"
COLUMNS = ("int_value", "double_value", "string_value", "proto_value", "bool_value")

PROPERTY_TYPES: dict[str, int] = {
    "int_value": mlpb.INT,
    "double_value": mlpb.DOUBLE,
    "string_value": mlpb.STRING,
    "struct_value": mlpb.STRUCT,
    "proto_value": mlpb.PROTO,
    "bool_value": mlpb.BOOLEAN,
}
"""Which declared kind of property a value's field is for."""


Row: TypeAlias = tuple[Any, ...]
"""A property as it is stored: its name, whether it is custom, then `COLUMNS`."""


def property_rows(node: Node) -> list[Row]:
    """Gives the properties of a node as rows."""
    return [
        (name, custom, *to_columns(value, value.WhichOneof("value")))
        for custom, properties in ((False, node.properties), (True, node.custom_properties))
        for name, value in properties.items()
    ]


def to_columns(value: mlpb.Value, field: str | None) -> tuple[Any, ...]:
    """Gives what to put into `COLUMNS`; all but one are None.

    Args:
        value: The value.
        field: Which of its fields is set.
    """
    if field == "string_value":
        return (None, None, value.string_value, None, None)
    if field == "int_value":
        return (value.int_value, None, None, None, None)
    if field == "double_value":
        return (None, value.double_value, None, None, None)
    if field == "bool_value":
        return (None, None, None, None, value.bool_value)
    if field == "struct_value":
        packed = value.struct_value.SerializeToString(deterministic=True)
        return (None, None, _STRUCT_PREFIX + base64.b64encode(packed).decode(), None, None)
    if field == "proto_value":
        packed = value.proto_value.SerializeToString(deterministic=True)
        return (None, None, None, base64.b64encode(packed), None)
    return (None,) * len(COLUMNS)


def from_columns(row: Any) -> mlpb.Value:
    """Reads a value from a row that has `COLUMNS` as attributes."""
    value = mlpb.Value()
    if row.int_value is not None:
        value.int_value = row.int_value
    elif row.double_value is not None:
        value.double_value = row.double_value
    else:
        fill(value, row.string_value, row.proto_value, row.bool_value)
    return value


def fill(value: mlpb.Value, text: str | None, proto: bytes | None, boolean: bool | int | None) -> None:
    """Sets a value that is no number from its columns."""
    if text is not None:
        value.string_value = text
        if text.startswith(_STRUCT_PREFIX):
            # Text that only looks like a struct stays text.
            with contextlib.suppress(ValueError, DecodeError):
                packed = base64.b64decode(text[len(_STRUCT_PREFIX) :], validate=True)
                struct = struct_pb2.Struct.FromString(packed)
                value.struct_value.CopyFrom(struct)
    elif boolean is not None:
        value.bool_value = bool(boolean)
    elif proto is not None:
        value.proto_value.CopyFrom(any_pb2.Any.FromString(base64.b64decode(proto)))


def unstorable(value: mlpb.Value, field: str) -> str:
    """Says why a value, of which this field is set, would not come back as it is; "" if it does."""
    if field == "double_value" and math.isnan(value.double_value):
        return "NaN cannot be stored"  # SQLite makes NULL of it
    if field == "string_value" and value.string_value.startswith(_STRUCT_PREFIX):
        return f"text that begins with {_STRUCT_PREFIX!r} cannot be stored: ML Metadata marks structs so"
    return ""


def plain(value: mlpb.Value) -> Any:
    """Gives a value as JSON has it; what JSON has not (packed messages, infinities) as text."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "struct_value":
        return {name: _plain_member(member) for name, member in value.struct_value.fields.items()}
    if kind == "proto_value":
        return value.proto_value.type_url
    return _finite(getattr(value, kind))


def _plain_member(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: _plain_member(member) for name, member in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain_member(member) for member in value.list_value.values]
    return None if kind in {None, "null_value"} else _finite(getattr(value, str(kind)))


def _finite(plain: Any) -> Any:
    return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain
