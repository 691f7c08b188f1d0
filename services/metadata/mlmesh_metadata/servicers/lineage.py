"""mlmesh.metadata.v1.LineageService."""

import grpc
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.mlmesh.metadata.v1 import lineage_pb2, lineage_pb2_grpc

from mlmesh_metadata.indexer import Indexer
from mlmesh_metadata.kinds import ARTIFACT
from mlmesh_metadata.lineage import Start, query_lineage
from mlmesh_metadata.servicers.answers import decorated, edge_message, node_message
from mlmesh_metadata.servicers.marks import MarkRpcs
from mlmesh_metadata.servicers.questions import QuestionRpcs
from mlmesh_metadata.servicers.search import SearchRpcs
from mlmesh_metadata.store import Store

_UPSTREAM = {
    lineage_pb2.DIRECTION_UNSPECIFIED,
    lineage_pb2.DIRECTION_UPSTREAM,
    lineage_pb2.DIRECTION_BOTH,
}
_DOWNSTREAM = {lineage_pb2.DIRECTION_DOWNSTREAM, lineage_pb2.DIRECTION_BOTH}


class LineageServicer(QuestionRpcs, SearchRpcs, MarkRpcs, lineage_pb2_grpc.LineageServiceServicer):
    """Answers where artifacts come from; the bases have the RPCs of one subject each."""

    def __init__(self, store: Store, indexer: Indexer) -> None:
        self._store = store
        self._indexer = indexer

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
            nodes = decorated(session, [node_message(kind, node, depth) for kind, node, depth in found.nodes])
        response = lineage_pb2.QueryLineageResponse(
            artifact_id=found.artifact_id, nodes=nodes, truncated=found.truncated
        )
        response.edges.extend(edge_message(event) for event in found.events)
        for kind, node_id, context_id in found.memberships:
            if kind is ARTIFACT:
                response.edges.add(type="ATTRIBUTION", artifact_id=node_id, context_id=context_id)
            else:
                response.edges.add(type="ASSOCIATION", execution_id=node_id, context_id=context_id)
        return response
