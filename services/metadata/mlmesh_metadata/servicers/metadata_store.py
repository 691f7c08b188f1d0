"""ml_metadata.MetadataStoreService: proto to domain and back."""

from collections.abc import Sequence
from typing import TypeVar, cast

import grpc
from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as service_grpc

from mlmesh_metadata.checks import check_external_ids
from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, Kind, Node, NodeType
from mlmesh_metadata.links import put_event, put_membership, put_parent
from mlmesh_metadata.listing import Page, list_nodes
from mlmesh_metadata.nodes import put_node
from mlmesh_metadata.publication import put_execution, put_lineage_subgraph
from mlmesh_metadata.store import Session, Store
from mlmesh_metadata.subgraph import get_graph, get_subgraph
from mlmesh_metadata.typing_rules import put_type

T = TypeVar("T")


class MetadataStoreServicer(service_grpc.MetadataStoreServiceServicer):
    """The store's protocol.

    Args:
        store: Where everything is.
        max_items: Nodes, links or ids in one request.
    """

    def __init__(self, store: Store, max_items: int) -> None:
        self._store = store
        self._max_items = max_items

    # Types
    def PutArtifactType(
        self, request: service.PutArtifactTypeRequest, context: grpc.ServicerContext
    ) -> service.PutArtifactTypeResponse:
        type_id = self._store.write(
            lambda session: put_type(
                session,
                ARTIFACT,
                request.artifact_type,
                can_add_fields=request.can_add_fields,
                can_omit_fields=request.can_omit_fields,
                field="artifact_type",
            )
        )
        return service.PutArtifactTypeResponse(type_id=type_id)

    def PutExecutionType(
        self, request: service.PutExecutionTypeRequest, context: grpc.ServicerContext
    ) -> service.PutExecutionTypeResponse:
        type_id = self._store.write(
            lambda session: put_type(
                session,
                EXECUTION,
                request.execution_type,
                can_add_fields=request.can_add_fields,
                can_omit_fields=request.can_omit_fields,
                field="execution_type",
            )
        )
        return service.PutExecutionTypeResponse(type_id=type_id)

    def PutContextType(
        self, request: service.PutContextTypeRequest, context: grpc.ServicerContext
    ) -> service.PutContextTypeResponse:
        type_id = self._store.write(
            lambda session: put_type(
                session,
                CONTEXT,
                request.context_type,
                can_add_fields=request.can_add_fields,
                can_omit_fields=request.can_omit_fields,
                field="context_type",
            )
        )
        return service.PutContextTypeResponse(type_id=type_id)

    def PutTypes(self, request: service.PutTypesRequest, context: grpc.ServicerContext) -> service.PutTypesResponse:
        self._limit(request, "artifact_types", "execution_types", "context_types")

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

    def GetArtifactType(
        self, request: service.GetArtifactTypeRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactTypeResponse:
        with self._store.read() as session:
            found = _type(session, ARTIFACT, request.type_name, request.type_version)
        return service.GetArtifactTypeResponse(artifact_type=cast(mlpb.ArtifactType, found))

    def GetArtifactTypesByID(
        self, request: service.GetArtifactTypesByIDRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactTypesByIDResponse:
        self._limit(request, "type_ids")
        with self._store.read() as session:
            found = session.types.by_ids(ARTIFACT, request.type_ids)
        return service.GetArtifactTypesByIDResponse(artifact_types=cast(list[mlpb.ArtifactType], [*found.values()]))

    def GetArtifactTypes(
        self, request: service.GetArtifactTypesRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactTypesResponse:
        with self._store.read() as session:
            found = session.types.all(ARTIFACT)
        return service.GetArtifactTypesResponse(artifact_types=cast(list[mlpb.ArtifactType], found))

    def GetArtifactTypesByExternalIds(
        self, request: service.GetArtifactTypesByExternalIdsRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactTypesByExternalIdsResponse:
        self._limit(request, "external_ids")
        check_external_ids(request.external_ids)
        with self._store.read() as session:
            found = session.types.by_external_ids(ARTIFACT, request.external_ids)
        return service.GetArtifactTypesByExternalIdsResponse(
            artifact_types=cast(list[mlpb.ArtifactType], _some(found, request.external_ids, "artifact type"))
        )

    def GetExecutionType(
        self, request: service.GetExecutionTypeRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionTypeResponse:
        with self._store.read() as session:
            found = _type(session, EXECUTION, request.type_name, request.type_version)
        return service.GetExecutionTypeResponse(execution_type=cast(mlpb.ExecutionType, found))

    def GetExecutionTypesByID(
        self, request: service.GetExecutionTypesByIDRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionTypesByIDResponse:
        self._limit(request, "type_ids")
        with self._store.read() as session:
            found = session.types.by_ids(EXECUTION, request.type_ids)
        return service.GetExecutionTypesByIDResponse(execution_types=cast(list[mlpb.ExecutionType], [*found.values()]))

    def GetExecutionTypes(
        self, request: service.GetExecutionTypesRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionTypesResponse:
        with self._store.read() as session:
            found = session.types.all(EXECUTION)
        return service.GetExecutionTypesResponse(execution_types=cast(list[mlpb.ExecutionType], found))

    def GetExecutionTypesByExternalIds(
        self, request: service.GetExecutionTypesByExternalIdsRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionTypesByExternalIdsResponse:
        self._limit(request, "external_ids")
        check_external_ids(request.external_ids)
        with self._store.read() as session:
            found = session.types.by_external_ids(EXECUTION, request.external_ids)
        return service.GetExecutionTypesByExternalIdsResponse(
            execution_types=cast(list[mlpb.ExecutionType], _some(found, request.external_ids, "execution type"))
        )

    def GetContextType(
        self, request: service.GetContextTypeRequest, context: grpc.ServicerContext
    ) -> service.GetContextTypeResponse:
        with self._store.read() as session:
            found = _type(session, CONTEXT, request.type_name, request.type_version)
        return service.GetContextTypeResponse(context_type=cast(mlpb.ContextType, found))

    def GetContextTypesByID(
        self, request: service.GetContextTypesByIDRequest, context: grpc.ServicerContext
    ) -> service.GetContextTypesByIDResponse:
        self._limit(request, "type_ids")
        with self._store.read() as session:
            found = session.types.by_ids(CONTEXT, request.type_ids)
        return service.GetContextTypesByIDResponse(context_types=cast(list[mlpb.ContextType], [*found.values()]))

    def GetContextTypes(
        self, request: service.GetContextTypesRequest, context: grpc.ServicerContext
    ) -> service.GetContextTypesResponse:
        with self._store.read() as session:
            found = session.types.all(CONTEXT)
        return service.GetContextTypesResponse(context_types=cast(list[mlpb.ContextType], found))

    def GetContextTypesByExternalIds(
        self, request: service.GetContextTypesByExternalIdsRequest, context: grpc.ServicerContext
    ) -> service.GetContextTypesByExternalIdsResponse:
        self._limit(request, "external_ids")
        check_external_ids(request.external_ids)
        with self._store.read() as session:
            found = session.types.by_external_ids(CONTEXT, request.external_ids)
        return service.GetContextTypesByExternalIdsResponse(
            context_types=cast(list[mlpb.ContextType], _some(found, request.external_ids, "context type"))
        )

    # Nodes
    def PutArtifacts(
        self, request: service.PutArtifactsRequest, context: grpc.ServicerContext
    ) -> service.PutArtifactsResponse:
        self._limit(request, "artifacts")
        abort = request.options.abort_if_latest_updated_time_changed
        ids = self._put(ARTIFACT, request.artifacts, request.update_mask.paths, abort_if_changed=abort)
        return service.PutArtifactsResponse(artifact_ids=ids)

    def PutExecutions(
        self, request: service.PutExecutionsRequest, context: grpc.ServicerContext
    ) -> service.PutExecutionsResponse:
        self._limit(request, "executions")
        ids = self._put(EXECUTION, request.executions, request.update_mask.paths)
        return service.PutExecutionsResponse(execution_ids=ids)

    def PutContexts(
        self, request: service.PutContextsRequest, context: grpc.ServicerContext
    ) -> service.PutContextsResponse:
        self._limit(request, "contexts")
        ids = self._put(CONTEXT, request.contexts, request.update_mask.paths)
        return service.PutContextsResponse(context_ids=ids)

    def GetArtifactsByID(
        self, request: service.GetArtifactsByIDRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactsByIDResponse:
        self._limit(request, "artifact_ids")
        with self._store.read() as session:
            found = cast(list[mlpb.Artifact], session.nodes.by_ids(ARTIFACT, request.artifact_ids))
            types: list[NodeType] = []
            if request.populate_artifact_types:
                types = [*session.types.by_ids(ARTIFACT, (node.type_id for node in found)).values()]
        return service.GetArtifactsByIDResponse(artifacts=found, artifact_types=cast(list[mlpb.ArtifactType], types))

    def GetArtifacts(
        self, request: service.GetArtifactsRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactsResponse:
        with self._store.read() as session:
            page = list_nodes(session, ARTIFACT, request.options if request.HasField("options") else None)
        return service.GetArtifactsResponse(
            artifacts=cast(list[mlpb.Artifact], page.nodes), next_page_token=page.next_page_token or None
        )

    def GetArtifactsByType(
        self, request: service.GetArtifactsByTypeRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactsByTypeResponse:
        with self._store.read() as session:
            found = session.types.find(ARTIFACT, request.type_name, request.type_version)
            options = request.options if request.HasField("options") else None
            page = list_nodes(session, ARTIFACT, options, type_id=found.id) if found else Page([])
        return service.GetArtifactsByTypeResponse(
            artifacts=cast(list[mlpb.Artifact], page.nodes), next_page_token=page.next_page_token or None
        )

    def GetArtifactByTypeAndName(
        self, request: service.GetArtifactByTypeAndNameRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactByTypeAndNameResponse:
        with self._store.read() as session:
            found = _named(session, ARTIFACT, request.type_name, request.type_version, request.artifact_name)
        return service.GetArtifactByTypeAndNameResponse(artifact=cast("mlpb.Artifact | None", found))

    def GetArtifactsByExternalIds(
        self, request: service.GetArtifactsByExternalIdsRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactsByExternalIdsResponse:
        self._limit(request, "external_ids")
        check_external_ids(request.external_ids)
        with self._store.read() as session:
            found = session.nodes.by_external_ids(ARTIFACT, request.external_ids)
        return service.GetArtifactsByExternalIdsResponse(
            artifacts=cast(list[mlpb.Artifact], _some(found, request.external_ids, "artifact"))
        )

    def GetExecutionsByID(
        self, request: service.GetExecutionsByIDRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionsByIDResponse:
        self._limit(request, "execution_ids")
        with self._store.read() as session:
            found = session.nodes.by_ids(EXECUTION, request.execution_ids)
        return service.GetExecutionsByIDResponse(executions=cast(list[mlpb.Execution], found))

    def GetExecutions(
        self, request: service.GetExecutionsRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionsResponse:
        with self._store.read() as session:
            page = list_nodes(session, EXECUTION, request.options if request.HasField("options") else None)
        return service.GetExecutionsResponse(
            executions=cast(list[mlpb.Execution], page.nodes), next_page_token=page.next_page_token or None
        )

    def GetExecutionsByType(
        self, request: service.GetExecutionsByTypeRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionsByTypeResponse:
        with self._store.read() as session:
            found = session.types.find(EXECUTION, request.type_name, request.type_version)
            options = request.options if request.HasField("options") else None
            page = list_nodes(session, EXECUTION, options, type_id=found.id) if found else Page([])
        return service.GetExecutionsByTypeResponse(
            executions=cast(list[mlpb.Execution], page.nodes), next_page_token=page.next_page_token or None
        )

    def GetExecutionByTypeAndName(
        self, request: service.GetExecutionByTypeAndNameRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionByTypeAndNameResponse:
        with self._store.read() as session:
            found = _named(session, EXECUTION, request.type_name, request.type_version, request.execution_name)
        return service.GetExecutionByTypeAndNameResponse(execution=cast("mlpb.Execution | None", found))

    def GetExecutionsByExternalIds(
        self, request: service.GetExecutionsByExternalIdsRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionsByExternalIdsResponse:
        self._limit(request, "external_ids")
        check_external_ids(request.external_ids)
        with self._store.read() as session:
            found = session.nodes.by_external_ids(EXECUTION, request.external_ids)
        return service.GetExecutionsByExternalIdsResponse(
            executions=cast(list[mlpb.Execution], _some(found, request.external_ids, "execution"))
        )

    def GetContextsByID(
        self, request: service.GetContextsByIDRequest, context: grpc.ServicerContext
    ) -> service.GetContextsByIDResponse:
        self._limit(request, "context_ids")
        with self._store.read() as session:
            found = session.nodes.by_ids(CONTEXT, request.context_ids)
        return service.GetContextsByIDResponse(contexts=cast(list[mlpb.Context], found))

    def GetContexts(
        self, request: service.GetContextsRequest, context: grpc.ServicerContext
    ) -> service.GetContextsResponse:
        with self._store.read() as session:
            page = list_nodes(session, CONTEXT, request.options if request.HasField("options") else None)
        return service.GetContextsResponse(
            contexts=cast(list[mlpb.Context], page.nodes), next_page_token=page.next_page_token or None
        )

    def GetContextsByType(
        self, request: service.GetContextsByTypeRequest, context: grpc.ServicerContext
    ) -> service.GetContextsByTypeResponse:
        with self._store.read() as session:
            found = session.types.find(CONTEXT, request.type_name, request.type_version)
            options = request.options if request.HasField("options") else None
            page = list_nodes(session, CONTEXT, options, type_id=found.id) if found else Page([])
        return service.GetContextsByTypeResponse(
            contexts=cast(list[mlpb.Context], page.nodes), next_page_token=page.next_page_token or None
        )

    def GetContextByTypeAndName(
        self, request: service.GetContextByTypeAndNameRequest, context: grpc.ServicerContext
    ) -> service.GetContextByTypeAndNameResponse:
        with self._store.read() as session:
            found = _named(session, CONTEXT, request.type_name, request.type_version, request.context_name)
        return service.GetContextByTypeAndNameResponse(context=cast("mlpb.Context | None", found))

    def GetContextsByExternalIds(
        self, request: service.GetContextsByExternalIdsRequest, context: grpc.ServicerContext
    ) -> service.GetContextsByExternalIdsResponse:
        self._limit(request, "external_ids")
        check_external_ids(request.external_ids)
        with self._store.read() as session:
            found = session.nodes.by_external_ids(CONTEXT, request.external_ids)
        return service.GetContextsByExternalIdsResponse(
            contexts=cast(list[mlpb.Context], _some(found, request.external_ids, "context"))
        )

    def GetArtifactsByURI(
        self, request: service.GetArtifactsByURIRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactsByURIResponse:
        self._limit(request, "uris")
        with self._store.read() as session:
            found = session.nodes.by_uris(request.uris)
        return service.GetArtifactsByURIResponse(artifacts=cast(list[mlpb.Artifact], found))

    # Links
    def PutEvents(self, request: service.PutEventsRequest, context: grpc.ServicerContext) -> service.PutEventsResponse:
        self._limit(request, "events")
        now = now_ms()

        def change(session: Session) -> None:
            for index, event in enumerate(request.events):
                put_event(session, event, now, f"events[{index}]")

        self._store.write(change)
        return service.PutEventsResponse()

    def PutAttributionsAndAssociations(
        self, request: service.PutAttributionsAndAssociationsRequest, context: grpc.ServicerContext
    ) -> service.PutAttributionsAndAssociationsResponse:
        self._limit(request, "attributions", "associations")

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
        self._limit(request, "parent_contexts")

        def change(session: Session) -> None:
            for index, link in enumerate(request.parent_contexts):
                put_parent(session, link, f"parent_contexts[{index}]")

        self._store.write(change)
        return service.PutParentContextsResponse()

    def GetEventsByExecutionIDs(
        self, request: service.GetEventsByExecutionIDsRequest, context: grpc.ServicerContext
    ) -> service.GetEventsByExecutionIDsResponse:
        self._limit(request, "execution_ids")
        with self._store.read() as session:
            events = session.links.events_of(EXECUTION, request.execution_ids)
        return service.GetEventsByExecutionIDsResponse(events=events)

    def GetEventsByArtifactIDs(
        self, request: service.GetEventsByArtifactIDsRequest, context: grpc.ServicerContext
    ) -> service.GetEventsByArtifactIDsResponse:
        self._limit(request, "artifact_ids")
        with self._store.read() as session:
            events = session.links.events_of(ARTIFACT, request.artifact_ids)
        return service.GetEventsByArtifactIDsResponse(events=events)

    def GetContextsByArtifact(
        self, request: service.GetContextsByArtifactRequest, context: grpc.ServicerContext
    ) -> service.GetContextsByArtifactResponse:
        with self._store.read() as session:
            ids = [context_id for _, context_id in session.links.memberships(ARTIFACT, [request.artifact_id])]
            found = session.nodes.by_ids(CONTEXT, ids)
        if not found:
            message = f"No contexts found for artifact_id: {request.artifact_id}"
            raise NotFound("context", request.artifact_id, message=message)
        return service.GetContextsByArtifactResponse(contexts=cast(list[mlpb.Context], found))

    def GetArtifactsByContext(
        self, request: service.GetArtifactsByContextRequest, context: grpc.ServicerContext
    ) -> service.GetArtifactsByContextResponse:
        with self._store.read() as session:
            options = request.options if request.HasField("options") else None
            page = list_nodes(session, ARTIFACT, options, context_id=request.context_id)
        return service.GetArtifactsByContextResponse(
            artifacts=cast(list[mlpb.Artifact], page.nodes), next_page_token=page.next_page_token or None
        )

    def GetContextsByExecution(
        self, request: service.GetContextsByExecutionRequest, context: grpc.ServicerContext
    ) -> service.GetContextsByExecutionResponse:
        with self._store.read() as session:
            ids = [context_id for _, context_id in session.links.memberships(EXECUTION, [request.execution_id])]
            found = session.nodes.by_ids(CONTEXT, ids)
        if not found:
            message = f"No contexts found for execution_id: {request.execution_id}"
            raise NotFound("context", request.execution_id, message=message)
        return service.GetContextsByExecutionResponse(contexts=cast(list[mlpb.Context], found))

    def GetExecutionsByContext(
        self, request: service.GetExecutionsByContextRequest, context: grpc.ServicerContext
    ) -> service.GetExecutionsByContextResponse:
        with self._store.read() as session:
            options = request.options if request.HasField("options") else None
            page = list_nodes(session, EXECUTION, options, context_id=request.context_id)
        return service.GetExecutionsByContextResponse(
            executions=cast(list[mlpb.Execution], page.nodes), next_page_token=page.next_page_token or None
        )

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
        self._limit(request, "context_ids")
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
        self._limit(request, "context_ids")
        response = service.GetChildrenContextsByContextsResponse()
        with self._store.read() as session:
            pairs = session.links.children_of(request.context_ids)
            found = {node.id: node for node in session.nodes.by_ids(CONTEXT, [pair[0] for pair in pairs])}
        for pair in sorted(pairs):
            response.contexts[pair[1]].children_contexts.append(cast(mlpb.Context, found[pair[0]]))
        return response

    # Several at once
    def PutExecution(
        self, request: service.PutExecutionRequest, context: grpc.ServicerContext
    ) -> service.PutExecutionResponse:
        self._limit(request, "artifact_event_pairs", "contexts")
        now = now_ms()
        ids = self._store.write(lambda session: put_execution(session, request, now))
        return service.PutExecutionResponse(execution_id=ids[0], artifact_ids=ids[1], context_ids=ids[2])

    def PutLineageSubgraph(
        self, request: service.PutLineageSubgraphRequest, context: grpc.ServicerContext
    ) -> service.PutLineageSubgraphResponse:
        self._limit(request, "executions", "artifacts", "contexts", "event_edges")
        now = now_ms()
        ids = self._store.write(lambda session: put_lineage_subgraph(session, request, now))
        return service.PutLineageSubgraphResponse(execution_ids=ids[0], artifact_ids=ids[1], context_ids=ids[2])

    def GetLineageGraph(
        self, request: service.GetLineageGraphRequest, context: grpc.ServicerContext
    ) -> service.GetLineageGraphResponse:
        with self._store.read() as session:
            graph = get_graph(session, request.options)
        return service.GetLineageGraphResponse(subgraph=graph)

    def GetLineageSubgraph(
        self, request: service.GetLineageSubgraphRequest, context: grpc.ServicerContext
    ) -> service.GetLineageSubgraphResponse:
        with self._store.read() as session:
            graph = get_subgraph(session, request.lineage_subgraph_query_options, request.read_mask.paths)
        return service.GetLineageSubgraphResponse(lineage_subgraph=graph)

    def _put(
        self, kind: Kind, nodes: Sequence[Node], mask: Sequence[str], *, abort_if_changed: bool = False
    ) -> list[int]:
        now = now_ms()

        def change(session: Session) -> list[int]:
            return [
                put_node(
                    session,
                    kind,
                    node,
                    now=now,
                    field=f"{kind.name}s[{index}]",
                    mask=mask,
                    abort_if_changed=abort_if_changed,
                )
                for index, node in enumerate(nodes)
            ]

        return self._store.write(change)

    def _limit(self, request: object, *fields: str) -> None:
        """Refuses lists that would hold the database for too long."""
        for field in fields:
            count = len(getattr(request, field))
            if count > self._max_items:
                raise InvalidArgument(f"has {count} items, and at most {self._max_items} are allowed", field=field)


def _type(session: Session, kind: Kind, name: str, version: str) -> NodeType:
    found = session.types.find(kind, name, version)
    if found is None:
        said = f"name: {name}" + (f", version: {version}" if version else "")
        raise NotFound(f"{kind.name} type", name, message=f"No {kind.name} type found for {said}")
    return found


def _named(session: Session, kind: Kind, type_name: str, type_version: str, name: str) -> Node | None:
    found = session.types.find(kind, type_name, type_version)
    return session.nodes.by_name(kind, found.id, name) if found else None


def _some(found: list[T], external_ids: Sequence[str], what: str) -> list[T]:
    """Like MLMD: none found of those asked for is NOT_FOUND, not an empty list."""
    if external_ids and not found:
        raise NotFound(what, external_ids[0], message=f"No {what}s found for external_ids.")
    return found
