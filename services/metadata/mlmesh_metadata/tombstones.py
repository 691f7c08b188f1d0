"""Deletion: a node's content goes, its place in the lineage stays. See docs/decisions/0027."""

from collections.abc import Collection, Iterable, Mapping

from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_protos.mlmesh.metadata.v1 import tombstone_pb2

from mlmesh_metadata.checks import MAX_NAME_CHARACTERS
from mlmesh_metadata.kinds import KINDS, Kind, Node
from mlmesh_metadata.marks import MAX_REASON_CHARACTERS
from mlmesh_metadata.reserved import is_deleted
from mlmesh_metadata.store import Session
from mlmesh_metadata.store.tombstones import TombstoneRow

MAX_IDS = 1000
"""In one request."""
_NAMES = {kind.number: kind.name for kind in KINDS}


def check_deletion(session: Session, ids: Mapping[Kind, Collection[int]], reason: str) -> dict[Kind, list[Node]]:
    """Refuses a deletion of what is not there; gives the nodes.

    Raises:
        InvalidArgument: No ids, or more than 1,000; a long reason.
        NotFound: One of them does not exist.
    """
    count = sum(map(len, ids.values()))
    if not 0 < count <= MAX_IDS:
        raise InvalidArgument(f"must be 1 to {MAX_IDS} ids in all, not {count}", field="artifact_ids")
    if len(reason) > MAX_REASON_CHARACTERS:
        raise InvalidArgument(f"must be at most {MAX_REASON_CHARACTERS} characters, not {len(reason)}", field="reason")
    found = {kind: session.nodes.by_ids(kind, ids.get(kind, ())) for kind in KINDS}
    for kind, nodes in found.items():
        missing = set(ids.get(kind, ())) - {node.id for node in nodes}
        if missing:
            raise NotFound(kind.name, min(missing))
    return found


def delete_nodes(
    session: Session, ids: Mapping[Kind, Collection[int]], reason: str, deleter: str, now: int
) -> list[TombstoneRow]:
    """Makes nodes tombstones, all or none; what is one already stays as it is.

    Args:
        session: Of a transaction that writes.
        ids: Of the nodes.
        reason: Why; may be empty.
        deleter: Who says so.
        now: Milliseconds since the epoch.

    Returns:
        One for each node, by kind and id.

    Raises:
        InvalidArgument: No ids, or more than 1,000; a long reason.
        NotFound: One of them does not exist.
    """
    for kind, nodes in check_deletion(session, ids, reason).items():
        alive = [node for node in nodes if not is_deleted(node)]
        session.tombstones.bury(kind, alive, [tombstone_of(kind, node, reason, deleter, now) for node in alive], now)
    return [row for kind in KINDS for _, row in sorted(session.tombstones.of(kind, ids.get(kind, ())).items())]


def tombstone_of(kind: Kind, node: Node, reason: str, deleter: str, now: int) -> TombstoneRow:
    """Gives what shall be known of a node that is deleted now."""
    display = node.custom_properties.get("display_name")
    name = node.name or (display.string_value[:MAX_NAME_CHARACTERS] if display is not None else "")
    return TombstoneRow(kind.number, node.id, name, deleter, now, reason)


def tombstone_message(row: TombstoneRow, type_name: str) -> tombstone_pb2.Tombstone:
    """Gives a tombstone as clients and exports have it."""
    made = tombstone_pb2.Tombstone(
        node_kind=_NAMES[row.kind],
        node_id=row.node_id,
        type=type_name,
        node_name=row.node_name,
        deleter=row.deleter,
        reason=row.reason,
    )
    if row.delete_time:
        made.delete_time.FromMilliseconds(row.delete_time)
    return made


def tombstones_of(session: Session, kind: Kind, nodes: Iterable[Node]) -> dict[int, TombstoneRow]:
    """Gives what is known of those of some nodes that were deleted, by id. It costs nothing where none was."""
    deleted = [node.id for node in nodes if is_deleted(node)]
    return session.tombstones.of(kind, deleted) if deleted else {}
