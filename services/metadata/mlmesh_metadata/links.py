"""How events, attributions, associations and parent contexts are put."""

from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION
from mlmesh_metadata.marks import inherit_marks
from mlmesh_metadata.store import Session


def put_event(session: Session, event: mlpb.Event, now: int, field: str) -> None:
    """Stores that an execution used or made an artifact.

    Args:
        session: Of a transaction that writes.
        event: As the client wrote it.
        now: Milliseconds since the epoch; taken when the event says no time.
        field: Where it is in the request.

    Raises:
        InvalidArgument: No artifact, execution or type is said, or they do not exist.
        AlreadyExists: There is one of this artifact, execution and type.
    """
    for name in ("artifact", "execution"):
        if not event.HasField(f"{name}_id"):  # type: ignore[arg-type]
            raise InvalidArgument(f"No {name} id is specified.", field=f"{field}.{name}_id")
    if event.type == mlpb.Event.UNKNOWN:
        raise InvalidArgument("No event type is specified.", field=f"{field}.type")
    for kind, node_id in ((ARTIFACT, event.artifact_id), (EXECUTION, event.execution_id)):
        if not session.nodes.existing(kind, [node_id]):
            raise InvalidArgument(f"No {kind.name} with the given id {node_id}", field=f"{field}.{kind.name}_id")
    for index, step in enumerate(event.path.steps):
        if step.WhichOneof("value") is None:
            raise InvalidArgument("must have an index or a key", field=f"{field}.path.steps[{index}]")
    session.links.insert_event(event, now)
    inherit_marks(session, event, now)


def put_membership(session: Session, link: mlpb.Attribution | mlpb.Association, field: str) -> None:
    """Puts an artifact (Attribution) or an execution (Association) into a context; twice is once.

    Args:
        session: Of a transaction that writes.
        link: As the client wrote it.
        field: Where it is in the request.

    Raises:
        InvalidArgument: One of them does not exist.
    """
    kind, node_id = (
        (ARTIFACT, link.artifact_id) if isinstance(link, mlpb.Attribution) else (EXECUTION, link.execution_id)
    )
    if not session.nodes.existing(CONTEXT, [link.context_id]):
        raise InvalidArgument("Context id not found.", field=f"{field}.context_id")
    if not session.nodes.existing(kind, [node_id]):
        raise InvalidArgument(f"{kind.name.capitalize()} id not found.", field=f"{field}.{kind.name}_id")
    session.links.join(kind, [(link.context_id, node_id)])


def put_parent(session: Session, link: mlpb.ParentContext, field: str) -> None:
    """Makes one context the parent of another.

    Args:
        session: Of a transaction that writes.
        link: As the client wrote it.
        field: Where it is in the request.

    Raises:
        InvalidArgument: One of them is missing or does not exist, or the parent descends from the child.
        AlreadyExists: It is the parent already.
    """
    if not link.HasField("child_id") or not link.HasField("parent_id"):
        raise InvalidArgument("Missing parent / child id in the parent_context", field=field)
    wanted = {link.child_id, link.parent_id}
    if len(wanted) == 1 or session.nodes.existing(CONTEXT, wanted) != wanted:
        raise InvalidArgument("Given parent / child id in the parent_context cannot be found", field=field)
    ancestors = {link.parent_id}
    newest = ancestors
    while newest:
        newest = {parent for _, parent in session.links.parents_of(sorted(newest))} - ancestors
        ancestors |= newest
    if link.child_id in ancestors:
        raise InvalidArgument("There is a cycle detected of the given relationship.", field=field)
    session.links.insert_parent(link.child_id, link.parent_id)
