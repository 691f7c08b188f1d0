"""Walks the graph of artifacts and executions: where something comes from, and what was made of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, INPUTS, OUTPUTS, Kind, Node
from mlmesh_metadata.store import Session

MAX_DEPTH = 10_000
MAX_NODES = 10_000


@dataclass(frozen=True)
class Start:
    """Where a walk begins: an id, or the newest artifact of a uri, or of a name (and a type).

    Args:
        artifact_id: 0: not said.
        uri: "": not said.
        name: "": not said.
        type_name: With a name or a uri: of the artifact's type.
    """

    artifact_id: int = 0
    uri: str = ""
    name: str = ""
    type_name: str = ""


@dataclass
class Lineage:
    """What a walk found.

    Args:
        artifact_id: Where it began.
        nodes: Kind, node, and how many executions away; the nearest first, contexts last.
        events: Between them.
        memberships: Kind, node id, context id.
        truncated: Whether there is more.
    """

    artifact_id: int
    nodes: list[tuple[Kind, Node, int]] = field(default_factory=list)
    events: list[mlpb.Event] = field(default_factory=list)
    memberships: list[tuple[Kind, int, int]] = field(default_factory=list)
    truncated: bool = False


def query_lineage(session: Session, start: Start, *, upstream: bool, downstream: bool, max_depth: int) -> Lineage:
    """Walks from an artifact, breadth first.

    Args:
        session: Of a transaction.
        start: Where it begins.
        upstream: Through the executions that made an artifact, to what they used.
        downstream: Through the executions that used an artifact, to what they made.
        max_depth: How many executions away at most; 0: to the end.

    Raises:
        InvalidArgument: No start is said, or a depth past 10,000.
        NotFound: No such artifact.
    """
    if not 0 <= max_depth <= MAX_DEPTH:
        raise InvalidArgument(f"must be 0 to {MAX_DEPTH}", field="max_depth")
    found = Lineage(_find(session, start))
    depths: dict[tuple[str, int], int] = {}
    events: dict[tuple[int, int, int], mlpb.Event] = {}
    for into_made, wanted in ((True, upstream), (False, downstream)):
        if wanted:
            # Each way has its own memory of where it was: in a cycle, what one has passed the other must still follow.
            walked = {(ARTIFACT.name, found.artifact_id): 0}
            found.truncated |= _walk(session, found.artifact_id, max_depth or MAX_DEPTH, into_made, walked, events)
            for node, depth in walked.items():
                depths[node] = min(depth, depths.get(node, depth))
    found.events = [
        event
        for _, event in sorted(events.items())
        if (ARTIFACT.name, event.artifact_id) in depths and (EXECUTION.name, event.execution_id) in depths
    ]
    for kind in (ARTIFACT, EXECUTION):
        ids = [node_id for name, node_id in depths if name == kind.name]
        found.nodes += [(kind, node, depths[kind.name, node.id]) for node in session.nodes.by_ids(kind, ids)]
        found.memberships += [(kind, node_id, context) for node_id, context in session.links.memberships(kind, ids)]
    found.nodes.sort(key=lambda entry: (entry[2], entry[0] is not ARTIFACT, entry[1].id))
    contexts: dict[int, int] = {}
    for kind, node_id, context_id in found.memberships:
        contexts[context_id] = min(contexts.get(context_id, MAX_DEPTH), depths[kind.name, node_id])
    found.nodes += [(CONTEXT, node, contexts[node.id]) for node in session.nodes.by_ids(CONTEXT, contexts)]
    return found


def _find(session: Session, start: Start) -> int:
    if start.artifact_id:
        if not session.nodes.existing(ARTIFACT, [start.artifact_id]):
            raise NotFound("artifact", start.artifact_id)
        return start.artifact_id
    if not start.uri and not start.name:
        raise InvalidArgument("one of artifact_id, uri and name is needed", field="artifact_id")
    artifact_id = session.nodes.newest_artifact(uri=start.uri, name=start.name, type_name=start.type_name)
    if artifact_id is None:
        raise NotFound("artifact", start.uri or start.name)
    return artifact_id


def _walk(
    session: Session,
    artifact_id: int,
    max_depth: int,
    upstream: bool,
    depths: dict[tuple[str, int], int],
    events: dict[tuple[int, int, int], mlpb.Event],
) -> bool:
    """Walks one way, adding to `depths` and `events`; tells whether it stopped before the end."""
    to_execution, to_artifact = (OUTPUTS, INPUTS) if upstream else (INPUTS, OUTPUTS)
    truncated = False
    frontier = {artifact_id}
    for depth in range(1, max_depth + 1):
        for kind, reached, wanted in ((ARTIFACT, EXECUTION, to_execution), (EXECUTION, ARTIFACT, to_artifact)):
            new = {i for i in _step(session, kind, frontier, wanted, events) if (reached.name, i) not in depths}
            room = MAX_NODES - len(depths)
            truncated |= len(new) > room
            frontier = set(sorted(new)[:room])
            depths.update({(reached.name, node_id): depth for node_id in frontier})
        if not frontier:
            return truncated
    beyond = session.links.events_of(ARTIFACT, frontier)
    return truncated or any(
        event.type in to_execution and (EXECUTION.name, event.execution_id) not in depths for event in beyond
    )


def _step(
    session: Session,
    kind: Kind,
    ids: Iterable[int],
    wanted: frozenset[int],
    events: dict[tuple[int, int, int], mlpb.Event],
) -> set[int]:
    """Crosses events: from artifacts to executions, or from executions to artifacts."""
    reached = set()
    for event in session.links.events_of(kind, ids):
        if event.type in wanted:
            events[event.artifact_id, event.execution_id, event.type] = event
            reached.add(event.execution_id if kind is ARTIFACT else event.artifact_id)
    return reached
