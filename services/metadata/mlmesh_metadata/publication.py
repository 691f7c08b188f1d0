"""PutExecution and PutLineageSubgraph: nodes and what links them, all or nothing, in one transaction."""

from collections.abc import Sequence

from mlmesh_kit.errors import InvalidArgument, NotFound, OutOfRange
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service

from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION
from mlmesh_metadata.links import put_event
from mlmesh_metadata.nodes import put_node
from mlmesh_metadata.store import Session


def put_execution(session: Session, request: service.PutExecutionRequest, now: int) -> tuple[int, list[int], list[int]]:
    """Stores an execution with its artifacts, events and contexts.

    Args:
        session: Of a transaction that writes.
        request: As the client wrote it.
        now: Milliseconds since the epoch.

    Returns:
        The ids of the execution, of the artifacts, and of the contexts; in the request's order.

    Raises:
        ServiceError: What `put_node` and `put_event` raise.
        InvalidArgument: An event names another execution or artifact than the one it comes with.
    """
    options = request.options
    execution_id = put_node(
        session, EXECUTION, request.execution, now=now, field="execution", touch=options.force_update_time
    )
    artifact_ids = []
    for index, pair in enumerate(request.artifact_event_pairs):
        field = f"artifact_event_pairs[{index}]"
        if pair.HasField("artifact") or not pair.event.HasField("artifact_id"):
            artifact_id = _put_artifact(
                session, pair.artifact, now, f"{field}.artifact", options.reuse_artifact_if_already_exist_by_external_id
            )
        else:
            artifact_id = pair.event.artifact_id
        artifact_ids.append(artifact_id)
        if not pair.HasField("event"):
            continue
        event = mlpb.Event()
        event.CopyFrom(pair.event)
        if event.HasField("execution_id") and event.execution_id != execution_id:
            raise InvalidArgument("does not match with the given execution", field=f"{field}.event.execution_id")
        if event.HasField("artifact_id") and event.artifact_id != artifact_id:
            raise InvalidArgument("is not aligned with the artifact", field=f"{field}.event.artifact_id")
        event.artifact_id, event.execution_id = artifact_id, execution_id
        put_event(session, event, now, f"{field}.event")
    context_ids = [
        _put_context(
            session,
            context,
            now,
            f"contexts[{index}]",
            reuse=options.reuse_context_if_already_exist,
            force=options.force_reuse_context,
        )
        for index, context in enumerate(request.contexts)
    ]
    _join_all(session, context_ids, artifact_ids, [execution_id])
    return execution_id, artifact_ids, context_ids


def put_lineage_subgraph(
    session: Session, request: service.PutLineageSubgraphRequest, now: int
) -> tuple[list[int], list[int], list[int]]:
    """Stores executions, artifacts and contexts, and the events between them.

    Args:
        session: Of a transaction that writes.
        request: As the client wrote it; an edge names its ends by index in the request, or by id in the event.
        now: Milliseconds since the epoch.

    Returns:
        The ids of executions, artifacts and contexts; in the request's order.

    Raises:
        ServiceError: What `put_node` and `put_event` raise.
        OutOfRange: An edge's index is past the request's lists.
        InvalidArgument: An edge lacks an end, or says two different ones.
    """
    options = request.options
    context_ids = [
        _put_context(session, context, now, f"contexts[{index}]", reuse=options.reuse_context_if_already_exist)
        for index, context in enumerate(request.contexts)
    ]
    artifact_ids = [
        _put_artifact(
            session, artifact, now, f"artifacts[{index}]", options.reuse_artifact_if_already_exist_by_external_id
        )
        for index, artifact in enumerate(request.artifacts)
    ]
    execution_ids = [
        put_node(session, EXECUTION, execution, now=now, field=f"executions[{index}]")
        for index, execution in enumerate(request.executions)
    ]
    _join_all(session, context_ids, artifact_ids, execution_ids)
    for index, edge in enumerate(request.event_edges):
        field = f"event_edges[{index}]"
        event = mlpb.Event()
        event.CopyFrom(edge.event)
        event.execution_id = _end(
            edge, "execution", execution_ids, [e.HasField("id") for e in request.executions], field
        )
        event.artifact_id = _end(edge, "artifact", artifact_ids, [a.HasField("id") for a in request.artifacts], field)
        put_event(session, event, now, f"{field}.event")
    return execution_ids, artifact_ids, context_ids


def _end(
    edge: service.PutLineageSubgraphRequest.EventEdge, name: str, ids: Sequence[int], known: Sequence[bool], field: str
) -> int:
    by_id = edge.event.HasField(f"{name}_id")  # type: ignore[arg-type]
    if not edge.HasField(f"{name}_index"):  # type: ignore[arg-type]
        if not by_id:
            message = f"Event_edge is missing an {name}: neither {name}_index nor event.{name}_id"
            raise InvalidArgument(message, field=field)
        return int(getattr(edge.event, f"{name}_id"))
    index: int = getattr(edge, f"{name}_index")
    if not 0 <= index < len(ids):
        raise OutOfRange(
            f"{field}: {name}_index {index} is outside the bounds of the request's {name}s list, [0, {len(ids)})"
        )
    if by_id and (not known[index] or getattr(edge.event, f"{name}_id") != ids[index]):
        message = f"names another {name} than {name}_index {index}"
        raise InvalidArgument(message, field=f"{field}.event.{name}_id")
    return ids[index]


def _put_artifact(session: Session, given: mlpb.Artifact, now: int, field: str, reuse: bool) -> int:
    artifact = given
    if reuse and given.external_id and not given.HasField("id"):
        known = session.nodes.by_external_ids(ARTIFACT, [given.external_id])
        if known:
            artifact = mlpb.Artifact()
            artifact.CopyFrom(given)
            artifact.id = known[0].id
    return put_node(session, ARTIFACT, artifact, now=now, field=field)


def _put_context(
    session: Session, given: mlpb.Context, now: int, field: str, *, reuse: bool, force: bool = False
) -> int:
    if force and given.HasField("id"):
        if not session.nodes.existing(CONTEXT, [given.id]):
            raise NotFound("context", given.id, message=f"{field}: no context with id {given.id}")
        return given.id
    if reuse and not given.HasField("id"):
        # Who comes second takes the first one's context, and leaves it as it is.
        known = session.nodes.by_name(CONTEXT, given.type_id, given.name)
        if known is not None:
            return known.id
    return put_node(session, CONTEXT, given, now=now, field=field)


def _join_all(
    session: Session, context_ids: Sequence[int], artifact_ids: Sequence[int], execution_ids: Sequence[int]
) -> None:
    for kind, ids in ((ARTIFACT, artifact_ids), (EXECUTION, execution_ids)):
        session.links.join(kind, [(context_id, node_id) for context_id in context_ids for node_id in ids])
