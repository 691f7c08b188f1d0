"""Full-text search."""

import grpc
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.mlmesh.metadata.v1 import question_pb2

from mlmesh_metadata.indexer import Indexer
from mlmesh_metadata.kinds import KINDS
from mlmesh_metadata.servicers.answers import node_message
from mlmesh_metadata.store import Store

MAX_PAGE = 1000
_DEFAULT_PAGE = 100


class SearchRpcs:
    """RPCs of LineageService."""

    _store: Store
    _indexer: Indexer

    def SearchNodes(
        self, request: question_pb2.SearchNodesRequest, context: grpc.ServicerContext
    ) -> question_pb2.SearchNodesResponse:
        kinds = {kind.name: kind for kind in KINDS}
        if request.kind and request.kind not in kinds:
            raise InvalidArgument(f"must be one of {', '.join(kinds)}, or empty", field="kind")
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidArgument(f"must be from 0 to {MAX_PAGE}; 0 means {_DEFAULT_PAGE}", field="page_size")
        found = self._indexer.search.search(
            request.query,
            kinds.get(request.kind),
            request.type,
            size=request.page_size or _DEFAULT_PAGE,
            page_token=request.page_token,
        )
        if not found.complete:
            self._indexer.wake()
        return question_pb2.SearchNodesResponse(
            nodes=[node_message(kind, node) for kind, node in found.nodes],
            next_page_token=found.next_page_token,
            complete=found.complete,
        )
