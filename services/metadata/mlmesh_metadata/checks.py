"""What is refused at the door, whatever is stored."""

from collections.abc import Iterable

from mlmesh_kit.errors import InvalidArgument

from mlmesh_metadata.kinds import Node, NodeType
from mlmesh_metadata.values import PROPERTY_TYPES, Row, to_columns, unstorable

MAX_NAME_CHARACTERS = 255
"""Of names, versions, external ids and property names: the columns' width in MLMD's schema."""


def check_name(value: str, field: str) -> None:
    """Refuses what does not fit.

    Raises:
        InvalidArgument: Longer than 255 characters.
    """
    if len(value) > MAX_NAME_CHARACTERS:
        raise InvalidArgument(f"must be at most {MAX_NAME_CHARACTERS} characters, not {len(value)}", field=field)


def check_external_ids(external_ids: Iterable[str]) -> None:
    """Refuses an empty one, as MLMD does.

    Raises:
        InvalidArgument: One is empty.
    """
    if not all(external_ids):
        raise InvalidArgument("Invalid argument because at least one empty external_id exists.", field="external_ids")


def check_properties(node: Node, declared: NodeType, field: str) -> list[Row]:
    """Refuses properties that a type does not declare, or of another kind.

    Args:
        node: As the client wrote it.
        declared: Its type.
        field: Where the node is in the request.

    Returns:
        The properties as they are stored: each value is looked at once, which is most of what a put costs.

    Raises:
        InvalidArgument: Names the property.
    """
    kinds = declared.properties
    rows: list[Row] = []
    properties = node.properties
    for name in properties:
        value = properties[name]
        kind = value.WhichOneof("value")
        if name not in kinds or kind is None or PROPERTY_TYPES[kind] != kinds[name]:
            raise _mismatch(name, kind, declared, f"{field}.properties[{name!r}]")
        if problem := unstorable(value, kind):
            raise InvalidArgument(problem, field=f"{field}.properties[{name!r}]")
        rows.append((name, False, *to_columns(value, kind)))
    properties = node.custom_properties
    for name in properties:
        value = properties[name]
        kind = value.WhichOneof("value")
        if len(name) > MAX_NAME_CHARACTERS:
            check_name(name, f"{field}.custom_properties[{name!r}]")
        if kind is None:
            raise InvalidArgument("must have a value", field=f"{field}.custom_properties[{name!r}]")
        if problem := unstorable(value, kind):
            raise InvalidArgument(problem, field=f"{field}.custom_properties[{name!r}]")
        rows.append((name, True, *to_columns(value, kind)))
    return rows


def _mismatch(name: str, kind: str | None, declared: NodeType, field: str) -> InvalidArgument:
    if name not in declared.properties:
        return InvalidArgument(f"Found unknown property: {name}; type {declared.name} has none such", field=field)
    wanted = next(n for n, number in PROPERTY_TYPES.items() if number == declared.properties[name])
    message = f"Found unmatched property type: {name}: type {declared.name} declares {wanted}, and it has {kind}"
    return InvalidArgument(message, field=field)
