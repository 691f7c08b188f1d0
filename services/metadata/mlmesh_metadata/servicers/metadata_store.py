"""ml_metadata.MetadataStoreService: proto to domain and back."""

from collections.abc import Callable
from typing import Any, cast

import grpc
from mlmesh_kit.interceptor import QUICK
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as service_grpc

from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, KINDS
from mlmesh_metadata.links import put_event, put_membership, put_parent
from mlmesh_metadata.publication import put_execution, put_lineage_subgraph
from mlmesh_metadata.servicers.kind import Handler, KindRpcs
from mlmesh_metadata.servicers.requests import check_counts
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.subgraph import get_graph, get_subgraph
from mlmesh_metadata.typing_rules import put_type
from mlmesh_metadata.wire import messages, sized


class MetadataStoreServicer(service_grpc.MetadataStoreServiceServicer):
    """The store's protocol: here what is there once; what is there for each kind of node is in `kind.py`.

    Args:
        store: Where everything is.
        max_items: Nodes, links or ids in one request.
    """

    def __init__(self, store: Store, max_items: int) -> None:
        self._store = store
        self._max_items = max_items
        for kind in KINDS:
            rpcs = KindRpcs(store, kind, max_items)
            handlers = rpcs.handlers() if kind is CONTEXT else {**rpcs.handlers(), **rpcs.member_handlers()}
            for name, handler in handlers.items():
                setattr(self, name, handler)  # over the generated base class's, which answers UNIMPLEMENTED
            if store.reads_at_once:
                for name, quick in rpcs.quick().items():
                    setattr(self, name, _marked(getattr(self, name), quick))

    def PutTypes(self, request: service.PutTypesRequest, context: grpc.ServicerContext) -> service.PutTypesResponse:
        check_counts(request, self._max_items, "artifact_types", "execution_types", "context_types")

        def change(session: Session) -> service.PutTypesResponse:
            response = service.PutTypesResponse()
            for kind in (ARTIFACT, EXECUTION, CONTEXT):
                for index, given in enumerate(getattr(request, f"{kind.name}_types")):
                    type_id = put_type(
                        session,
                        kind,
                        given,
                        can_add_fields=request.can_add_fields,
                        can_omit_fields=request.can_omit_fields,
                        field=f"{kind.name}_types[{index}]",
                    )
                    getattr(response, f"{kind.name}_type_ids").append(type_id)
            return response

        return self._store.write(change)

    def GetArtifactsByURI(
        self, request: service.GetArtifactsByURIRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactsByURIResponse:
        check_counts(request, self._max_items, "uris")
        with self._store.read() as session:
            found = session.nodes.by_uris(request.uris)
        return service.GetArtifactsByURIResponse(artifacts=cast(list[mlpb.Artifact], found))

    def PutEvents(self, request: service.PutEventsRequest, context: grpc.ServicerContext) -> service.PutEventsResponse:
        check_counts(request, self._max_items, "events")
        now = now_ms()

        def change(session: Session) -> None:
            for index, event in enumerate(request.events):
                put_event(session, event, now, f"events[{index}]")

        self._store.write(change)
        return service.PutEventsResponse()

    def PutAttributionsAndAssociations(
        self, request: service.PutAttributionsAndAssociationsRequest, context: grpc.ServicerContext
    ) -> service.PutAttributionsAndAssociationsResponse:
        check_counts(request, self._max_items, "attributions", "associations")

        def change(session: Session) -> None:
            for index, attribution in enumerate(request.attributions):
                put_membership(session, attribution, f"attributions[{index}]")
            for index, association in enumerate(request.associations):
                put_membership(session, association, f"associations[{index}]")

        self._store.write(change)
        return service.PutAttributionsAndAssociationsResponse()

    def PutParentContexts(
        self, request: service.PutParentContextsRequest, context: grpc.ServicerContext
    ) -> service.PutParentContextsResponse:
        check_counts(request, self._max_items, "parent_contexts")

        def change(session: Session) -> None:
            for index, link in enumerate(request.parent_contexts):
                put_parent(session, link, f"parent_contexts[{index}]")

        self._store.write(change)
        return service.PutParentContextsResponse()

    def GetEventsByExecutionIDs(
        self, request: service.GetEventsByExecutionIDsRequest, context: grpc.ServicerContext
    ) -> service.GetEventsByExecutionIDsResponse:
        check_counts(request, self._max_items, "execution_ids")
        with self._store.read() as session:
            events = session.links.events_of(EXECUTION, request.execution_ids)
        return service.GetEventsByExecutionIDsResponse(events=events)

    def GetEventsByArtifactIDs(
        self, request: service.GetEventsByArtifactIDsRequest, context: grpc.ServicerContext
    ) -> service.GetEventsByArtifactIDsResponse:
        check_counts(request, self._max_items, "artifact_ids")
        with self._store.read() as session:
            events = session.links.events_of(ARTIFACT, request.artifact_ids)
        return service.GetEventsByArtifactIDsResponse(events=events)

    def GetParentContextsByContext(
        self, request: service.GetParentContextsByContextRequest, context: grpc.ServicerContext
    ) -> service.GetParentContextsByContextResponse:
        with self._store.read() as session:
            pairs = session.links.parents_of([request.context_id])
            found = session.nodes.by_ids(CONTEXT, [pair[1] for pair in pairs])
        return service.GetParentContextsByContextResponse(contexts=cast(list[mlpb.Context], found))

    def GetParentContextsByContexts(
        self, request: service.GetParentContextsByContextsRequest, context: grpc.ServicerContext
    ) -> service.GetParentContextsByContextsResponse:
        check_counts(request, self._max_items, "context_ids")
        response = service.GetParentContextsByContextsResponse()
        with self._store.read() as session:
            pairs = session.links.parents_of(request.context_ids)
            found = {node.id: node for node in session.nodes.by_ids(CONTEXT, [pair[1] for pair in pairs])}
        for pair in sorted(pairs):
            response.contexts[pair[0]].parent_contexts.append(cast(mlpb.Context, found[pair[1]]))
        return response

    def GetChildrenContextsByContext(
        self, request: service.GetChildrenContextsByContextRequest, context: grpc.ServicerContext
    ) -> service.GetChildrenContextsByContextResponse:
        with self._store.read() as session:
            pairs = session.links.children_of([request.context_id])
            found = session.nodes.by_ids(CONTEXT, [pair[0] for pair in pairs])
        return service.GetChildrenContextsByContextResponse(contexts=cast(list[mlpb.Context], found))

    def GetChildrenContextsByContexts(
        self, request: service.GetChildrenContextsByContextsRequest, context: grpc.ServicerContext
    ) -> service.GetChildrenContextsByContextsResponse:
        check_counts(request, self._max_items, "context_ids")
        response = service.GetChildrenContextsByContextsResponse()
        with self._store.read() as session:
            pairs = session.links.children_of(request.context_ids)
            found = {node.id: node for node in session.nodes.by_ids(CONTEXT, [pair[0] for pair in pairs])}
        for pair in sorted(pairs):
            response.contexts[pair[1]].children_contexts.append(cast(mlpb.Context, found[pair[0]]))
        return response

    def PutExecution(
        self, request: service.PutExecutionRequest, context: grpc.ServicerContext
    ) -> service.PutExecutionResponse:
        check_counts(request, self._max_items, "artifact_event_pairs", "contexts")
        now = now_ms()
        ids = self._store.write(lambda session: put_execution(session, request, now))
        return service.PutExecutionResponse(execution_id=ids[0], artifact_ids=ids[1], context_ids=ids[2])

    def PutLineageSubgraph(
        self, request: service.PutLineageSubgraphRequest, context: grpc.ServicerContext
    ) -> service.PutLineageSubgraphResponse:
        check_counts(request, self._max_items, "executions", "artifacts", "contexts", "event_edges")
        now = now_ms()
        ids = self._store.write(lambda session: put_lineage_subgraph(session, request, now))
        return service.PutLineageSubgraphResponse(execution_ids=ids[0], artifact_ids=ids[1], context_ids=ids[2])

    def GetLineageGraph(  # type: ignore[override]  # the answer is encoded already
        self, request: service.GetLineageGraphRequest, context: grpc.ServicerContext
    ) -> bytes:
        with self._store.read() as session:
            graph = get_graph(session, request.options)
        return messages(service.GetLineageGraphResponse, "subgraph", [sized(graph)])

    def GetLineageSubgraph(  # type: ignore[override]
        self, request: service.GetLineageSubgraphRequest, context: grpc.ServicerContext
    ) -> bytes:
        with self._store.read() as session:
            graph = get_subgraph(session, request.lineage_subgraph_query_options, request.read_mask.paths)
        return messages(service.GetLineageSubgraphResponse, "lineage_subgraph", [sized(graph)])


def _marked(handler: Handler, quick: Callable[[Any], bool]) -> Handler:
    def marked(request: Any, context: Any) -> Any:
        return handler(request, context)

    setattr(marked, QUICK, quick)
    return marked
