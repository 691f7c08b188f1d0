"""What is refused at the door, whatever is stored."""

from collections.abc import Iterable

from mlmesh_kit.errors import InvalidArgument

from mlmesh_metadata.kinds import Node, NodeType
from mlmesh_metadata.values import PROPERTY_TYPES, unstorable

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


def check_properties(node: Node, declared: NodeType, field: str) -> None:
    """Refuses properties that a type does not declare, or of another kind.

    Args:
        node: As the client wrote it.
        declared: Its type.
        field: Where the node is in the request.

    Raises:
        InvalidArgument: Names the property.
    """
    for name, value in node.properties.items():
        where = f"{field}.properties[{name!r}]"
        if name not in declared.properties:
            raise InvalidArgument(f"Found unknown property: {name}; type {declared.name} has none such", field=where)
        kind = value.WhichOneof("value")
        if kind is None or PROPERTY_TYPES[kind] != declared.properties[name]:
            wanted = next(n for n, number in PROPERTY_TYPES.items() if number == declared.properties[name])
            raise InvalidArgument(
                f"Found unmatched property type: {name}: type {declared.name} declares {wanted}, and it has {kind}",
                field=where,
            )
        if problem := unstorable(value):
            raise InvalidArgument(problem, field=where)
    for name, value in node.custom_properties.items():
        where = f"{field}.custom_properties[{name!r}]"
        check_name(name, where)
        if value.WhichOneof("value") is None:
            raise InvalidArgument("must have a value", field=where)
        if problem := unstorable(value):
            raise InvalidArgument(problem, field=where)
