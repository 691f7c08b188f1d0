"""How artifacts, executions and contexts are put: made, or changed as a whole or by a mask."""

import contextlib
from collections.abc import Sequence

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound

from mlmesh_metadata.checks import check_name, check_properties
from mlmesh_metadata.kinds import Kind, Node
from mlmesh_metadata.reserved import is_deleted, keep_reserved
from mlmesh_metadata.store import Session
from mlmesh_metadata.values import Row

_TIMES = ("create_time_since_epoch", "last_update_time_since_epoch")
_FIXED = {"id", "name", "type_id", "type", *_TIMES}
"""What a mask cannot change; MLMD passes over these and over unknown paths."""


def put_node(
    session: Session,
    kind: Kind,
    given: Node,
    *,
    now: int,
    field: str,
    mask: Sequence[str] = (),
    abort_if_changed: bool = False,
    touch: bool = False,
) -> int:
    """Stores a new node (without id), or makes a stored one as given.

    Args:
        session: Of a transaction that writes.
        kind: Of the node.
        given: As the client wrote it.
        now: Milliseconds since the epoch.
        field: Where it is in the request.
        mask: Paths of what to change in a stored node; none: all of it. `properties.KEY` is one property.
        abort_if_changed: Refuse when the stored one has another last_update_time_since_epoch than given.
        touch: Set the time of the last update even if nothing changes.

    Returns:
        The node's id.

    Raises:
        InvalidArgument: No type, an unknown id, another type than stored, a property that the type does not declare.
        NotFound: No such type.
        AlreadyExists: Name or external_id is taken.
        FailedPrecondition: It has changed since (`abort_if_changed`), or was deleted.
    """
    check_name(given.name, f"{field}.name")
    check_name(given.external_id, f"{field}.external_id")
    if not given.HasField("id"):
        return _create(session, kind, given, now, field)
    stored = next(iter(session.nodes.by_ids(kind, [given.id])), None)
    if stored is None:
        raise InvalidArgument(f"Cannot find the given id {given.id}", field=f"{field}.id")
    if given.HasField("type_id") and given.type_id != stored.type_id and not mask:
        message = f"Given type_id {given.type_id} is different from the one known before: {stored.type_id}"
        raise InvalidArgument(message, field=f"{field}.type_id")
    if abort_if_changed and given.last_update_time_since_epoch != stored.last_update_time_since_epoch:
        raise FailedPrecondition(
            f"abort_if_latest_updated_time_changed is set, and the stored {kind.name} {given.id} was changed at "
            f"{stored.last_update_time_since_epoch}, not at {given.last_update_time_since_epoch}"
        )
    wanted = keep_reserved(stored, _masked(stored, given, mask) if mask else given)
    # Clients compare this time to see changes, so it moves even within one millisecond.
    at = max(now, stored.last_update_time_since_epoch + 1)
    if _same(stored, wanted):
        if touch:
            session.nodes.touch(kind, stored.id, at)
        return stored.id
    if is_deleted(stored):
        raise FailedPrecondition(
            f"{field}: {kind.name} {stored.id} was deleted; put it without an id to make a new one"
        )
    properties = _check(session, kind, wanted, stored.type_id, field)
    session.nodes.update(kind, stored, wanted, at, properties)
    return stored.id


def _create(session: Session, kind: Kind, given: Node, now: int, field: str) -> int:
    if not given.HasField("type_id"):
        raise InvalidArgument("Type id is missing.", field=f"{field}.type_id")
    if kind.name_required and not given.name:
        raise InvalidArgument(f"{kind.name.capitalize()} name should not be empty", field=f"{field}.name")
    wanted = keep_reserved(None, given)
    properties = _check(session, kind, wanted, wanted.type_id, field)
    return session.nodes.insert(kind, wanted, now, properties)


def _check(session: Session, kind: Kind, node: Node, type_id: int, field: str) -> list[Row]:
    """Checks a node against its type, as it is remembered, and if that does not allow it, as it is now.

    Gives its properties as they are stored.
    """
    declared = session.types.remembered(kind, type_id)
    if declared is not None:
        with contextlib.suppress(InvalidArgument):
            return check_properties(node, declared, field)
    declared = session.types.by_ids(kind, [type_id]).get(type_id)
    if declared is None:
        message = f"No {kind.name} type found for type_id: {type_id}"
        raise NotFound(f"{kind.name} type", type_id, message=message)
    return check_properties(node, declared, field)


def _masked(stored: Node, given: Node, mask: Sequence[str]) -> Node:
    """Gives the stored node with what the mask names taken from the given one."""
    wanted = type(stored)()
    wanted.CopyFrom(stored)  # type: ignore[arg-type]
    for path in mask:
        field, _, key = path.partition(".")
        if field in _FIXED or field not in stored.DESCRIPTOR.fields_by_name:
            continue
        if field in {"properties", "custom_properties"}:
            source, target = getattr(given, field), getattr(wanted, field)
            for name in [key] if key else {*source, *target}:
                if name in source:
                    target[name].CopyFrom(source[name])
                else:
                    target.pop(name, None)
        elif given.HasField(field):  # type: ignore[arg-type]
            setattr(wanted, field, getattr(given, field))
        else:
            wanted.ClearField(field)  # type: ignore[arg-type]
    return wanted


def _same(stored: Node, wanted: Node) -> bool:
    one, other = type(stored)(), type(stored)()
    one.CopyFrom(stored)  # type: ignore[arg-type]
    other.CopyFrom(wanted)  # type: ignore[arg-type]
    for node in (one, other):
        for field in _TIMES:
            node.ClearField(field)  # type: ignore[arg-type]
    return one == other
