"""GetLineageSubgraph and GetLineageGraph: the part of the graph of artifacts and executions around some nodes.

A hop is one step from an artifact to an execution or back.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from mlmesh_kit.errors import InvalidArgument, NotFound, ResourceExhausted
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.filtering import Expression, parse_filter
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, INPUTS, OUTPUTS, Kind
from mlmesh_metadata.listing import list_page
from mlmesh_metadata.store import Session
from mlmesh_metadata.store.listing import Order
from mlmesh_metadata.wire import messages

MAX_STARTING_NODES = 100
MAX_NODES = 50_000
"""Of a whole answer."""

_PARTS = (
    "artifacts",
    "executions",
    "contexts",
    "artifact_types",
    "execution_types",
    "context_types",
    "events",
    "associations",
    "attributions",
)


@dataclass
class _Walk:
    """What was reached.

    Args:
        nodes: Ids by the name of the kind.
        events: Ids of the events between them.
    """

    nodes: dict[str, set[int]] = field(default_factory=lambda: {ARTIFACT.name: set(), EXECUTION.name: set()})
    events: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        return sum(map(len, self.nodes.values()))


@dataclass(frozen=True)
class _Bounds:
    """Where a walk ends.

    Args:
        max_hops: None: nowhere.
        upstream: Whether it goes from what was made to what it was made of.
        downstream: The other way.
        stop: Given a kind and new nodes, those at which it stops.
        keep_stopped: By the name of the kind: whether nodes at which it stops are in the answer.
        max_nodes: How many there may be in all.
    """

    max_hops: int | None
    upstream: bool
    downstream: bool
    stop: Callable[[Kind, Collection[int]], set[int]]
    keep_stopped: dict[str, bool]
    max_nodes: int


def get_subgraph(session: Session, options: mlpb.LineageSubgraphQueryOptions, read_mask: Sequence[str]) -> bytes:
    """Answers GetLineageSubgraph: with a LineageGraph, encoded.

    Args:
        session: Of a transaction.
        options: As the client wrote them.
        read_mask: Fields of the answer that are wanted; none: all.

    Raises:
        InvalidArgument: No starting nodes are asked for, a filter means nothing, a negative number of hops.
        NotFound: No node to start from.
        ResourceExhausted: More than 50,000 nodes.
    """
    name = "lineage_subgraph_query_options"
    which = options.WhichOneof("starting_nodes")
    if which is None:
        raise InvalidArgument("Missing arguments for listing starting nodes.", field=f"{name}.starting_nodes")
    if options.max_num_hops < 0:
        message = f"max_num_hops cannot be negative: max_num_hops = {options.max_num_hops}"
        raise InvalidArgument(message, field=f"{name}.max_num_hops")
    kind = ARTIFACT if which == "starting_artifacts" else EXECUTION
    query = getattr(options, which).filter_query
    if not query:
        message = "Cannot list starting nodes if `filter_query` is unspecified."
        raise InvalidArgument(message, field=f"{name}.{which}.filter_query")
    directions = mlpb.LineageSubgraphQueryOptions
    bounds = _Bounds(
        max_hops=options.max_num_hops if options.HasField("max_num_hops") else None,
        upstream=options.direction != directions.DOWNSTREAM,
        downstream=options.direction != directions.UPSTREAM,
        stop=_endings(session, options, name),
        keep_stopped={
            ARTIFACT.name: options.ending_artifacts.include_ending_nodes,
            EXECUTION.name: options.ending_executions.include_ending_nodes,
        },
        max_nodes=MAX_NODES,
    )
    wanted = parse_filter(query, kind, f"{name}.{which}.filter_query")
    start = [stamp.id for _, stamp in session.listing.page(kind, Order("id", True), MAX_STARTING_NODES, wanted=wanted)]
    if not start:
        raise NotFound(kind.name, query[:200], message="Cannot find qualified nodes to start the traversal.")
    return _graph(session, _walk(session, kind, start, bounds), read_mask or _PARTS)


def get_graph(session: Session, options: mlpb.LineageGraphQueryOptions) -> bytes:
    """Answers GetLineageGraph, which ML Metadata has deprecated: with a LineageGraph, encoded.

    Args:
        session: Of a transaction.
        options: As the client wrote them; nodes that boundary_artifacts and boundary_executions do not match are left
            out, with what lies behind them.

    Raises:
        InvalidArgument: No artifacts are asked for, a filter means nothing, a negative number of hops or nodes.
        NotFound: No artifact to start from.
    """
    if options.WhichOneof("query_nodes") is None:
        raise InvalidArgument("Missing query_nodes conditions", field="options.query_nodes")
    conditions = options.stop_conditions
    if conditions.max_num_hops < 0:
        message = f"max_num_hops cannot be negative: max_num_hops = {conditions.max_num_hops}"
        raise InvalidArgument(message, field="options.stop_conditions.max_num_hops")
    if options.max_node_size < 0:
        message = f"max_node_size cannot be negative: max_node_size = {options.max_node_size}"
        raise InvalidArgument(message, field="options.max_node_size")
    page = list_page(session, ARTIFACT, options.artifacts_options)
    if not page.stamps:
        raise NotFound("artifact", "", message="The query_nodes condition does not match any nodes to do traversal.")
    boundaries = {
        kind.name: parse_filter(query, kind, f"options.stop_conditions.{name}")
        for kind, name, query in (
            (ARTIFACT, "boundary_artifacts", conditions.boundary_artifacts),
            (EXECUTION, "boundary_executions", conditions.boundary_executions),
        )
        if query
    }

    def stop(kind: Kind, ids: Collection[int]) -> set[int]:
        if kind.name not in boundaries:
            return set()
        field = f"options.stop_conditions.boundary_{kind.name}s"
        return set(ids) - session.listing.matching(kind, ids, boundaries[kind.name], field)

    bounds = _Bounds(
        max_hops=conditions.max_num_hops if conditions.HasField("max_num_hops") else None,
        upstream=True,
        downstream=True,
        stop=stop,
        keep_stopped={ARTIFACT.name: False, EXECUTION.name: False},
        max_nodes=options.max_node_size or MAX_NODES,
    )
    start = [stamp.id for stamp in page.stamps]
    walk = _walk(session, ARTIFACT, start, bounds, cut=options.max_node_size > 0, stop_at_start=False)
    return _graph(session, walk, _PARTS)


def _endings(
    session: Session, options: mlpb.LineageSubgraphQueryOptions, name: str
) -> Callable[[Kind, Collection[int]], set[int]]:
    """Tells at which nodes the walk stops. An empty filter matches every node, as in MLMD."""
    filters: dict[str, Expression | None] = {}
    for kind in (ARTIFACT, EXECUTION):
        ending = f"ending_{kind.name}s"
        if getattr(options, ending).HasField("filter_query"):
            query = getattr(options, ending).filter_query
            filters[kind.name] = parse_filter(query, kind, f"{name}.{ending}.filter_query") if query else None

    def stop(kind: Kind, ids: Collection[int]) -> set[int]:
        if kind.name not in filters or not ids:
            return set()
        wanted = filters[kind.name]
        if wanted is None:
            return set(ids)
        return session.listing.matching(kind, ids, wanted, f"{name}.ending_{kind.name}s.filter_query")

    return stop


def _walk(
    session: Session,
    kind: Kind,
    start: Sequence[int],
    bounds: _Bounds,
    *,
    cut: bool = False,
    stop_at_start: bool = True,
) -> _Walk:
    """Walks breadth first.

    Args:
        session: Of a transaction.
        kind: Of the nodes that it starts from.
        start: Their ids.
        bounds: Where it ends.
        cut: At the largest size, leave the rest out rather than refuse.
        stop_at_start: Whether a starting node can be one at which it stops.

    Raises:
        ResourceExhausted: There are more nodes than allowed.
    """
    found = _Walk()
    stopped: dict[str, set[int]] = {ARTIFACT.name: set(), EXECUTION.name: set()}

    def enter(kind: Kind, ids: set[int], may_stop: bool = True) -> set[int]:
        """Adds new nodes; gives those from which the walk goes on."""
        new = ids - found.nodes[kind.name] - stopped[kind.name]
        ends = bounds.stop(kind, new) if may_stop else set()
        stopped[kind.name] |= ends
        kept = new if bounds.keep_stopped[kind.name] else new - ends
        room = bounds.max_nodes - found.size
        if len(kept) > room:
            if not cut:
                raise ResourceExhausted(
                    f"the lineage has more than {bounds.max_nodes} nodes: give max_num_hops or ending nodes"
                )
            kept = set(sorted(kept)[:room])
        found.nodes[kind.name] |= kept
        return kept - ends

    frontier = enter(kind, set(start), stop_at_start)
    crossed: dict[int, tuple[int, int]] = {}
    hops = 0
    while frontier and (bounds.max_hops is None or hops < bounds.max_hops):
        other = EXECUTION if kind is ARTIFACT else ARTIFACT
        reached: set[int] = set()
        # From an artifact an output leads up, to what made it; from an execution an input does.
        up, down = (OUTPUTS, INPUTS) if kind is ARTIFACT else (INPUTS, OUTPUTS)
        wanted = (up if bounds.upstream else frozenset()) | (down if bounds.downstream else frozenset())
        for event_id, artifact_id, execution_id, _ in session.links.crossings(kind, frontier, wanted):
            crossed[event_id] = (artifact_id, execution_id)
            reached.add(execution_id if kind is ARTIFACT else artifact_id)
        frontier, kind = enter(other, reached), other
        hops += 1
    artifacts, executions = found.nodes[ARTIFACT.name], found.nodes[EXECUTION.name]
    found.events = {event for event, (a, e) in crossed.items() if a in artifacts and e in executions}
    return found


def _graph(session: Session, walk: _Walk, wanted: Sequence[str]) -> bytes:
    """Reads what the answer is to hold. Parts that do not exist are passed over, as MLMD does."""
    graph = mlpb.LineageGraph()
    nodes: list[bytes] = []

    def add(kind: Kind, ids: Collection[int]) -> None:
        if f"{kind.name}s" not in wanted and f"{kind.name}_types" not in wanted:
            return
        stamps = session.nodes.stamps(kind, ids)
        if f"{kind.name}s" in wanted:
            nodes.append(messages(mlpb.LineageGraph, f"{kind.name}s", session.nodes.encoded(kind, stamps)))
        if f"{kind.name}_types" in wanted:
            types = session.types.by_ids(kind, {stamp.type_id for stamp in stamps})
            getattr(graph, f"{kind.name}_types").extend(types.values())

    contexts: set[int] = set()
    for kind, links in ((ARTIFACT, "attributions"), (EXECUTION, "associations")):
        ids = walk.nodes[kind.name]
        add(kind, ids)
        if {links, "contexts", "context_types"} & set(wanted):
            members = session.links.memberships(kind, ids)
            contexts |= {context_id for _, context_id in members}
            if links in wanted:
                for node_id, context_id in members:
                    getattr(graph, links).add(**{f"{kind.name}_id": node_id, "context_id": context_id})
    add(CONTEXT, contexts)
    if "events" in wanted:
        graph.events.extend(session.links.events_by_ids(walk.events))
    return b"".join(nodes) + graph.SerializeToString()
