"""mlmesh.metadata.v1.LineageService."""

import math
from typing import Any

import grpc
from google.protobuf import struct_pb2
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import lineage_pb2, lineage_pb2_grpc

from mlmesh_metadata.kinds import ARTIFACT, INPUTS, Kind, Node
from mlmesh_metadata.lineage import Start, query_lineage
from mlmesh_metadata.store import Store

_UPSTREAM = {
    lineage_pb2.DIRECTION_UNSPECIFIED,
    lineage_pb2.DIRECTION_UPSTREAM,
    lineage_pb2.DIRECTION_BOTH,
}
_DOWNSTREAM = {lineage_pb2.DIRECTION_DOWNSTREAM, lineage_pb2.DIRECTION_BOTH}


class LineageServicer(lineage_pb2_grpc.LineageServiceServicer):
    """Answers where artifacts come from."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def QueryLineage(
        self, request: lineage_pb2.QueryLineageRequest, context: grpc.ServicerContext
    ) -> lineage_pb2.QueryLineageResponse:
        if request.direction not in _UPSTREAM | _DOWNSTREAM:
            raise InvalidArgument("must be a value of Direction", field="direction")
        start = Start(request.artifact_id, request.uri, request.name, request.type)
        with self._store.read() as session:
            found = query_lineage(
                session,
                start,
                upstream=request.direction in _UPSTREAM,
                downstream=request.direction in _DOWNSTREAM,
                max_depth=request.max_depth,
            )
        response = lineage_pb2.QueryLineageResponse(artifact_id=found.artifact_id, truncated=found.truncated)
        for kind, node, depth in found.nodes:
            response.nodes.append(_node(kind, node, depth))
        for event in found.events:
            path = ".".join(step.key if step.HasField("key") else str(step.index) for step in event.path.steps)
            response.edges.add(
                type="INPUT" if event.type in INPUTS else "OUTPUT",
                artifact_id=event.artifact_id,
                execution_id=event.execution_id,
                path=path,
            )
        for kind, node_id, context_id in found.memberships:
            if kind is ARTIFACT:
                response.edges.add(type="ATTRIBUTION", artifact_id=node_id, context_id=context_id)
            else:
                response.edges.add(type="ASSOCIATION", execution_id=node_id, context_id=context_id)
        return response


def _node(kind: Kind, node: Node, depth: int) -> lineage_pb2.Node:
    made = lineage_pb2.Node(
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
            made.properties[name] = _plain(value)
    return made


def _plain(value: mlpb.Value) -> Any:
    """Gives a value as JSON has it; what JSON has not (packed messages, infinities) as text."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "struct_value":
        return {name: _plain_member(member) for name, member in value.struct_value.fields.items()}
    if kind == "proto_value":
        return value.proto_value.type_url
    return _finite(getattr(value, kind))


def _plain_member(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: _plain_member(member) for name, member in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain_member(member) for member in value.list_value.values]
    return None if kind in {None, "null_value"} else _finite(getattr(value, str(kind)))


def _finite(plain: Any) -> Any:
    return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain
