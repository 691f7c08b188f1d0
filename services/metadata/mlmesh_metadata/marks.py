"""Marks: an artifact is bad, and with it all that was made from it, now and later.

A mark is on nodes in a table of ours, and says so in a custom property of each of them: so every list of every client
shows it, and `filter_query` finds it.
"""

from collections.abc import Iterable

from mlmesh_kit.errors import InvalidArgument, NotFound, ResourceExhausted
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import ARTIFACT, EXECUTION, INPUTS, OUTPUTS, Kind
from mlmesh_metadata.reserved import BAD_DATA
from mlmesh_metadata.store import Session
from mlmesh_metadata.store.marks import MarkRow

MAX_NODES = 10_000
"""On how many nodes one mark is put at once."""
MAX_REASON_CHARACTERS = 1000


def downstream_of(session: Session, kind: Kind, node_id: int) -> dict[Kind, set[int]]:
    """Gives a node and all that was made from it, to any depth.

    Raises:
        ResourceExhausted: More than 10,000 nodes.
    """
    found: dict[Kind, set[int]] = {ARTIFACT: set(), EXECUTION: set()}
    found[kind].add(node_id)
    frontier = {node_id}
    while frontier:
        other, wanted = (EXECUTION, INPUTS) if kind is ARTIFACT else (ARTIFACT, OUTPUTS)
        crossed = session.links.crossings(kind, frontier, wanted)
        reached = {event.execution_id if kind is ARTIFACT else event.artifact_id for event in crossed}
        frontier, kind = reached - found[other], other
        found[kind] |= frontier
        if sum(map(len, found.values())) > MAX_NODES:
            raise ResourceExhausted(f"more than {MAX_NODES} nodes were made from it; nothing was marked")
    return found


def mark_downstream(session: Session, artifact_id: int, reason: str, creator: str, now: int) -> MarkRow:
    """Marks an artifact and all that was made from it, all or nothing.

    Args:
        session: Of a transaction that writes.
        artifact_id: What is bad.
        reason: Why.
        creator: Who says so.
        now: Milliseconds since the epoch.

    Raises:
        InvalidArgument: No reason, or a long one.
        NotFound: No such artifact.
        ResourceExhausted: More than 10,000 nodes.
    """
    check_mark(session, artifact_id, reason)
    found = downstream_of(session, ARTIFACT, artifact_id)
    mark_id = session.marks.insert(artifact_id, reason, creator, now)
    session.marks.put_on(mark_id, ARTIFACT, [artifact_id], origin=True)
    session.marks.put_on(mark_id, ARTIFACT, found[ARTIFACT] - {artifact_id})
    session.marks.put_on(mark_id, EXECUTION, found[EXECUTION])
    for kind, ids in found.items():
        _write_reasons(session, kind, ids, now)
    return get_mark(session, mark_id)


def check_mark(session: Session, artifact_id: int, reason: str) -> None:
    """Refuses a mark without a reason or an artifact; see `mark_downstream`."""
    if not reason.strip() or len(reason) > MAX_REASON_CHARACTERS:
        message = f"must say why, in at most {MAX_REASON_CHARACTERS} characters, not {len(reason)}"
        raise InvalidArgument(message, field="reason")
    if not artifact_id:
        raise InvalidArgument("is needed: the id of the artifact that is bad", field="artifact_id")
    if not session.nodes.existing(ARTIFACT, [artifact_id]):
        raise NotFound("artifact", artifact_id)


def undo_mark(session: Session, mark_id: int, now: int) -> MarkRow:
    """Takes a mark back from everything it is on; twice is once.

    Raises:
        NotFound: No such mark.
    """
    mark = get_mark(session, mark_id)
    if mark.undo_time is None:
        session.marks.undo(mark_id, now)
        for kind in (ARTIFACT, EXECUTION):
            _write_reasons(session, kind, session.marks.nodes_of(mark_id, kind), now)
    return get_mark(session, mark_id)


def get_mark(session: Session, mark_id: int) -> MarkRow:
    """Gives a mark.

    Raises:
        NotFound: No such mark.
    """
    found = session.marks.get(mark_id)
    if found is None:
        raise NotFound("mark", f"marks/{mark_id}")
    return found


def inherit_marks(session: Session, event: mlpb.Event, now: int) -> None:
    """Hands marks on, over an event that is new: to an execution from what it uses, to an artifact from what makes it.

    Raises:
        ResourceExhausted: More than 10,000 nodes were made from it.
    """
    if not session.marks.any_standing:
        return
    if event.type in INPUTS:
        source, source_id, target, target_id = ARTIFACT, event.artifact_id, EXECUTION, event.execution_id
    elif event.type in OUTPUTS:
        source, source_id, target, target_id = EXECUTION, event.execution_id, ARTIFACT, event.artifact_id
    else:
        return
    given = {note.mark_id for note in session.marks.notes(source, [source_id])}
    missing = given - {note.mark_id for note in session.marks.notes(target, [target_id])}
    if not missing:
        return
    found = downstream_of(session, target, target_id)
    for kind, ids in found.items():
        known = {(note.mark_id, note.node_id) for note in session.marks.notes(kind, sorted(ids))}
        for mark_id in sorted(missing):
            session.marks.put_on(mark_id, kind, sorted(i for i in ids if (mark_id, i) not in known))
        _write_reasons(session, kind, ids, now)


def _write_reasons(session: Session, kind: Kind, ids: Iterable[int], now: int) -> None:
    """Brings the property of nodes up to date."""
    reasons: dict[int, list[str]] = {}
    nodes = session.nodes.by_ids(kind, ids)
    for note in session.marks.notes(kind, [node.id for node in nodes]):
        reasons.setdefault(note.node_id, []).append(note.reason)
    for stored in nodes:
        wanted = type(stored)()
        wanted.CopyFrom(stored)  # type: ignore[arg-type]
        if stored.id in reasons:
            wanted.custom_properties[BAD_DATA].string_value = "; ".join(reasons[stored.id])
        else:
            wanted.custom_properties.pop(BAD_DATA, None)
        if wanted != stored:
            session.nodes.update(kind, stored, wanted, max(now, stored.last_update_time_since_epoch + 1))
