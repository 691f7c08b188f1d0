"""The DAG of a run, an experiment or another context: its executions, and what goes between them."""

from collections import deque
from dataclasses import dataclass, field

from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, INPUTS, KINDS, OUTPUTS, Kind, Node
from mlmesh_metadata.store import Session
from mlmesh_metadata.store.listing import Order
from mlmesh_metadata.tombstones import tombstones_of

MAX_NODES = 10_000


@dataclass(frozen=True)
class Dag:
    """What belongs to a context.

    Args:
        context: It.
        nodes: Executions and artifacts, each after what it was made of.
        events: Between them.
        truncated: Whether there are more than 10,000.
        deleted: What those nodes were called that are tombstones, by kind and id.
    """

    context: Node
    nodes: list[tuple[Kind, Node]]
    events: list[mlpb.Event]
    truncated: bool
    deleted: dict[tuple[str, int], str] = field(default_factory=dict)


def find_context(session: Session, context_id: int, name: str, type_name: str) -> Node:
    """Finds a context by id, or the newest one of a name.

    Args:
        session: Of a transaction.
        context_id: 0: not said.
        name: "": not said.
        type_name: With a name: of its type; "" is any.

    Raises:
        InvalidArgument: Neither is said.
        NotFound: There is none.
    """
    if not context_id and not name:
        raise InvalidArgument("one of context_id and name is needed", field="context_id")
    found_id = context_id or session.nodes.newest_context(name, type_name)
    found = session.nodes.by_ids(CONTEXT, [found_id]) if found_id else []
    if not found:
        raise NotFound("context", context_id or name)
    return found[0]


def get_dag(session: Session, context: Node) -> Dag:
    """Gathers the executions and the artifacts of a context, and the artifacts that those executions use and make."""
    members: dict[Kind, list[int]] = {}
    for kind in (EXECUTION, ARTIFACT):
        page = session.listing.page(kind, Order("id", True), MAX_NODES + 1, context_id=context.id)
        members[kind] = [stamp.id for _, stamp in page]
    executions = members[EXECUTION][:MAX_NODES]
    events = session.links.events_of(EXECUTION, executions)
    artifacts = sorted({*members[ARTIFACT], *(event.artifact_id for event in events)})
    room = MAX_NODES - len(executions)
    truncated = len(members[EXECUTION]) > MAX_NODES or len(artifacts) > room
    kept = set(artifacts[:room])
    events = [event for event in events if event.artifact_id in kept]
    nodes: dict[tuple[str, int], tuple[Kind, Node]] = {}
    for kind, ids in ((EXECUTION, executions), (ARTIFACT, sorted(kept))):
        nodes.update({(kind.name, node.id): (kind, node) for node in session.nodes.by_ids(kind, ids)})
    deleted = {}
    for kind in KINDS:
        own = [node for of, node in [*nodes.values(), (CONTEXT, context)] if of is kind]
        deleted.update({(kind.name, i): row.node_name for i, row in tombstones_of(session, kind, own).items()})
    return Dag(context, [nodes[key] for key in _in_order(nodes, events)], events, truncated, deleted)


def _in_order(nodes: dict[tuple[str, int], tuple[Kind, Node]], events: list[mlpb.Event]) -> list[tuple[str, int]]:
    """Sorts topologically (Kahn); what is in a circle comes last, by id."""
    after: dict[tuple[str, int], set[tuple[str, int]]] = {key: set() for key in nodes}
    waits_for = dict.fromkeys(nodes, 0)
    for event in events:
        artifact, execution = (ARTIFACT.name, event.artifact_id), (EXECUTION.name, event.execution_id)
        source, target = (artifact, execution) if event.type in INPUTS else (execution, artifact)
        if event.type in INPUTS | OUTPUTS and source in after and target in after and target not in after[source]:
            after[source].add(target)
            waits_for[target] += 1
    ready = deque(sorted(key for key, count in waits_for.items() if not count))
    ordered = []
    while ready:
        key = ready.popleft()
        ordered.append(key)
        for following in sorted(after[key]):
            waits_for[following] -= 1
            if not waits_for[following]:
                ready.append(following)
    return ordered + sorted(nodes.keys() - set(ordered))
