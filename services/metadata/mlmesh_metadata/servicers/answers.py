"""Nodes and properties as the lineage service shows them."""

from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import graph_pb2

from mlmesh_metadata.comparison import path_of
from mlmesh_metadata.kinds import ARTIFACT, EXECUTION, INPUTS, KINDS, Kind, Node
from mlmesh_metadata.reserved import DELETED
from mlmesh_metadata.store import Session
from mlmesh_metadata.tombstones import tombstone_message
from mlmesh_metadata.values import plain


def node_message(kind: Kind, node: Node, depth: int = 0) -> graph_pb2.Node:
    """Gives a node as the lineage service shows it."""
    made = graph_pb2.Node(
        kind=kind.name,
        id=node.id,
        type=node.type,
        name=node.name,
        create_time_since_epoch=node.create_time_since_epoch,
        depth=depth,
    )
    if isinstance(node, mlpb.Artifact):
        made.uri = node.uri
        made.state = mlpb.Artifact.State.Name(node.state) if node.HasField("state") else ""
    elif isinstance(node, mlpb.Execution):
        made.state = mlpb.Execution.State.Name(node.last_known_state) if node.HasField("last_known_state") else ""
    for properties in (node.properties, node.custom_properties):
        for name, value in properties.items():
            made.properties[name] = plain(value)
    return made


def edge_message(event: mlpb.Event) -> graph_pb2.Edge:
    """Gives an event as the lineage service shows it."""
    return graph_pb2.Edge(
        type="INPUT" if event.type in INPUTS else "OUTPUT",
        artifact_id=event.artifact_id,
        execution_id=event.execution_id,
        path=path_of(event),
    )


def decorated(session: Session, nodes: list[graph_pb2.Node]) -> list[graph_pb2.Node]:
    """Adds to nodes the marks that stand on them, and what is known of those that were deleted."""
    for kind in (ARTIFACT, EXECUTION):
        shown = {node.id: node for node in nodes if node.kind == kind.name}
        for note in session.marks.notes(kind, list(shown)):
            shown[note.node_id].marks.add(mark=f"marks/{note.mark_id}", reason=note.reason, origin=note.origin)
    for kind in KINDS:
        deleted = {node.id: node for node in nodes if node.kind == kind.name and DELETED in node.properties}
        for node_id, row in (session.tombstones.of(kind, deleted) if deleted else {}).items():
            node = deleted[node_id]
            node.name = row.node_name
            node.tombstone.CopyFrom(tombstone_message(row, node.type))
    return nodes
