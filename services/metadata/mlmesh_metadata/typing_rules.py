"""How types are put and how they may change.

MLMD's rules: https://github.com/google/ml-metadata/blob/master/ml_metadata/proto/metadata_store_service.proto
(PutArtifactType): the same type again is the same id; properties may be added or left out only where the request allows
it; what a property is never changes.
"""

from mlmesh_kit.errors import AlreadyExists, InvalidArgument, Unimplemented
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.checks import check_name
from mlmesh_metadata.kinds import Kind, NodeType
from mlmesh_metadata.store import Session

_NO_BASE = 0


def put_type(
    session: Session, kind: Kind, given: NodeType, *, can_add_fields: bool, can_omit_fields: bool, field: str
) -> int:
    """Stores a type, or brings the one of its name and version up to date.

    Args:
        session: Of a transaction that writes.
        kind: Of the type.
        given: As the client wrote it.
        can_add_fields: Whether it may have properties that the stored one has not; they are added.
        can_omit_fields: Whether it may lack properties of the stored one; they stay.
        field: Where it is in the request.

    Returns:
        The type's id.

    Raises:
        InvalidArgument: It has no name, or a property's kind is not said.
        AlreadyExists: It is not what is stored, and may not change so; or another has its external_id.
        Unimplemented: Another base_type than before, as in MLMD.
    """
    _check(given, field)
    stored = session.types.find(kind, given.name, given.version)
    if stored is None:
        if given.external_id and session.types.external_id_taken(given.external_id):
            raise _external_id_taken(kind, given.external_id)
        type_id = session.types.insert(kind, given)
        _set_base(session, kind, type_id, given)
        return type_id
    new = _compare(kind, stored, given, can_add_fields=can_add_fields, can_omit_fields=can_omit_fields)
    if new:
        session.types.add_properties(stored.id, new)
    if given.external_id and given.external_id != stored.external_id:
        if session.types.external_id_taken(given.external_id):
            raise _external_id_taken(kind, given.external_id)
        session.types.update(stored.id, external_id=given.external_id)
    if given.HasField("base_type") and given.base_type != stored.base_type:
        if given.base_type == _NO_BASE:
            raise Unimplemented("base_type deletion is not supported yet")
        if stored.base_type != _NO_BASE:
            raise Unimplemented("base_type update is not supported yet")
        _set_base(session, kind, stored.id, given)
    return stored.id


def _check(given: NodeType, field: str) -> None:
    if not given.name:
        raise InvalidArgument("No type name is specified.", field=f"{field}.name")
    check_name(given.name, f"{field}.name")
    check_name(given.version, f"{field}.version")
    check_name(given.external_id, f"{field}.external_id")
    for name, kind in given.properties.items():
        check_name(name, f"{field}.properties")
        if kind == mlpb.UNKNOWN:
            raise InvalidArgument(f"Property {name} is UNKNOWN.", field=f"{field}.properties[{name!r}]")


def _compare(
    kind: Kind, stored: NodeType, given: NodeType, *, can_add_fields: bool, can_omit_fields: bool
) -> dict[str, int]:
    """Gives the properties to add."""
    problem = ""
    new: dict[str, int] = {name: value for name, value in given.properties.items() if name not in stored.properties}
    missing = [name for name in stored.properties if name not in given.properties]
    differing = [n for n, value in given.properties.items() if n in stored.properties and stored.properties[n] != value]
    if differing:
        problem = f"conflicting property value type found in stored and given types: {', '.join(sorted(differing))}"
    elif missing and not can_omit_fields:
        problem = f"can_omit_fields is false while the stored type has more properties: {', '.join(sorted(missing))}"
    elif new and not can_add_fields:
        problem = f"can_add_fields is false while the given type has more properties: {', '.join(sorted(new))}"
    if problem:
        message = f"Type already exists with different properties: {kind.name} type {given.name!r}: {problem}"
        raise AlreadyExists(f"{kind.name} type", given.name, message=message)
    return new


def _set_base(session: Session, kind: Kind, type_id: int, given: NodeType) -> None:
    names = dict(kind.bases)
    if given.HasField("base_type") and given.base_type in names:
        session.types.set_base(type_id, names[given.base_type])


def _external_id_taken(kind: Kind, external_id: str) -> AlreadyExists:
    message = f"Conflict of external_id: {external_id}: a type has it already"
    return AlreadyExists(f"{kind.name} type", external_id, message=message)
