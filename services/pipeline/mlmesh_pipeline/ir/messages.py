"""Reads content into messages; where it does not fit, says at which place, and what was expected there."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from mlmesh_kit.errors import InvalidArgument

from mlmesh_pipeline.ir.bounds import MAX_DEPTH

_UNFIT = (json_format.ParseError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)
_EXPECTED = {
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number of 32 bits, not negative",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number of 64 bits, not negative",
}
_WELL_KNOWN = {
    "google.protobuf.Struct": "a mapping",
    "google.protobuf.Value": "a value of JSON",
    "google.protobuf.Duration": "a duration such as 7s",
}


def read_message(content: Any, message: Any, field: str) -> Any:
    """Reads content into a message, and gives it.

    Args:
        content: As JSON was read; within `bounds`.
        message: An empty message.
        field: Where the content is in the request.

    Raises:
        InvalidArgument: It has an unknown field or a value of the wrong type; names the place.
    """
    if not isinstance(content, dict):
        raise InvalidArgument("must be a mapping", field=field)
    try:
        return json_format.ParseDict(content, message, max_recursion_depth=MAX_DEPTH)
    except _UNFIT as error:
        place, words = _fault(content, message.DESCRIPTOR, field) or (field, " ".join(str(error).split())[:500])
        raise InvalidArgument(words, field=place) from error


def _fault(content: Any, kind: Descriptor, path: str) -> tuple[str, str] | None:
    """Finds what does not fit: the place, and what was expected there. Goes down only where reading fails."""
    if kind.full_name in _WELL_KNOWN:
        return path, f"must be {_WELL_KNOWN[kind.full_name]}"
    if not isinstance(content, dict):
        return path, "must be a mapping"
    fields = {name: field for field in kind.fields for name in (field.json_name, field.name)}
    for name, value in content.items():
        here = _below(path, name)
        if name not in fields:
            return here, f"there is no such field (there are: {', '.join(field.json_name for field in kind.fields)})"
        if not _fits({name: value}, kind):
            return _fault_of_field(value, fields[name], here)
    names = [union.name for name in content if (union := fields[name].containing_oneof) is not None]
    twice = next((name for name in names if names.count(name) > 1), "")
    return (path, f"has more than one of {twice}") if twice else None


def _fault_of_field(value: Any, field: FieldDescriptor, path: str) -> tuple[str, str] | None:
    entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
    if entry is not None:
        if not isinstance(value, dict):
            return path, "must be a mapping"
        inner = entry.fields_by_name["value"]
        children = [(f"{path}[{name[:100]!r}]", child) for name, child in value.items()]
    elif field.is_repeated:
        if not isinstance(value, list):
            return path, "must be a list"
        inner = field
        children = [(f"{path}[{number}]", child) for number, child in enumerate(value)]
    else:
        inner = field
        children = [(path, value)]
    for place, child in children:
        alone = {"x": child} if entry is not None else [child] if field.is_repeated else child
        if field.containing_type is not None and not _fits({field.name: alone}, field.containing_type):
            if inner.message_type is not None:
                return _fault(child, inner.message_type, place)
            return place, f"must be {_expected(inner)}"
    return path, f"must be {_expected(inner)}"


def _fits(content: dict[str, Any], kind: Descriptor) -> bool:
    try:
        json_format.ParseDict(content, GetMessageClass(kind)(), max_recursion_depth=MAX_DEPTH)
    except _UNFIT:
        return False
    return True


def _expected(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return f"one of {', '.join(value.name for value in field.enum_type.values)}"
    return _EXPECTED.get(field.cpp_type, "a mapping")


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if name.isidentifier() else f"{path}[{name[:100]!r}]"
