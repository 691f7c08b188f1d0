"""Questions about artifacts, runs and contexts."""

from typing import Any

import grpc
from google.api import httpbody_pb2
from google.protobuf import json_format
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb
from mlmesh_protos.mlmesh.metadata.v1 import graph_pb2, question_pb2

from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.comparison import MISSING, Difference, compare_artifacts, to_value
from mlmesh_metadata.dag import Dag, find_context, get_dag
from mlmesh_metadata.drawing import to_dot, to_svg
from mlmesh_metadata.fingerprint import WantedInput, find_execution
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, Kind
from mlmesh_metadata.listing import MAX_PAGE, Page, list_page
from mlmesh_metadata.recording import COMMIT, EXPERIMENT, OWNER, PROJECT, Record, contexts_filter, record_context
from mlmesh_metadata.servicers.answers import decorated, edge_message, node_message
from mlmesh_metadata.servicers.requests import check_counts
from mlmesh_metadata.store import Session, Store

_MAX_ITEMS = 1000


class QuestionRpcs:
    """RPCs of LineageService."""

    _store: Store

    def ListArtifacts(
        self, request: question_pb2.ListArtifactsRequest, context: grpc.ServicerContext
    ) -> question_pb2.ListArtifactsResponse:
        if not request.type:
            raise InvalidArgument("is needed: the name of the artifacts' type", field="type")
        with self._store.read() as session:
            found = session.types.find(ARTIFACT, request.type)
            options = _options(request, request.filter)
            page = _page(session, ARTIFACT, options, found.id, with_deleted=request.show_deleted) if found else Page([])
            nodes = session.nodes.in_order(ARTIFACT, [stamp.id for stamp in page.stamps])
            shown = decorated(session, [node_message(ARTIFACT, node) for node in nodes])
        return question_pb2.ListArtifactsResponse(artifacts=shown, next_page_token=page.next_page_token)

    def CompareArtifacts(
        self, request: question_pb2.CompareArtifactsRequest, context: grpc.ServicerContext
    ) -> question_pb2.ArtifactComparison:
        with self._store.read() as session:
            found = compare_artifacts(session, request.left_id, request.right_id)
            left, right = (decorated(session, [node_message(ARTIFACT, n)])[0] for n in (found.left, found.right))
        answer = question_pb2.ArtifactComparison(left=left, right=right)
        for name in ("properties", "metrics", "inputs", "executions"):
            getattr(answer, name).extend(_difference(one) for one in getattr(found, name))
        answer.equal = not (found.properties or found.metrics or found.inputs or found.executions)
        return answer

    def GetGraph(self, request: question_pb2.GetGraphRequest, context: grpc.ServicerContext) -> question_pb2.Graph:
        with self._store.read() as session:
            dag = _dag(session, request)
            nodes = decorated(session, [node_message(kind, node) for kind, node in dag.nodes])
            (shown,) = decorated(session, [node_message(CONTEXT, dag.context)])
        return question_pb2.Graph(
            context=shown,
            nodes=nodes,
            edges=[edge_message(event) for event in dag.events],
            truncated=dag.truncated,
        )

    def RenderGraph(
        self, request: question_pb2.RenderGraphRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        if request.format not in question_pb2.GraphFormat.values():
            raise InvalidArgument("must be a value of GraphFormat", field="format")
        with self._store.read() as session:
            dag = _dag(session, request)
        if request.format == question_pb2.GRAPH_FORMAT_SVG:
            return httpbody_pb2.HttpBody(content_type="image/svg+xml", data=to_svg(dag).encode())
        return httpbody_pb2.HttpBody(content_type="text/vnd.graphviz", data=to_dot(dag).encode())

    def FindExecution(
        self, request: question_pb2.FindExecutionRequest, context: grpc.ServicerContext
    ) -> question_pb2.FindExecutionResponse:
        check_counts(request, _MAX_ITEMS, "inputs")
        inputs = [WantedInput(given.name, given.artifact_id, given.uri) for given in request.inputs]
        with self._store.read() as session:
            found = find_execution(session, request.type, inputs, json_format.MessageToDict(request.properties))
        answer = question_pb2.FindExecutionResponse(
            hit=found.hit,
            fingerprint=found.fingerprint,
            outputs=[node_message(ARTIFACT, node) for node in found.outputs],
            reasons=[
                question_pb2.MissReason(code=one.code, name=one.name, wanted=one.wanted, found=one.found)
                for one in found.reasons
            ],
        )
        if found.execution is not None:
            answer.execution.CopyFrom(node_message(EXECUTION, found.execution))
        return answer

    def RecordContext(
        self, request: question_pb2.RecordContextRequest, context: grpc.ServicerContext
    ) -> graph_pb2.Node:
        check_counts(request, _MAX_ITEMS, "artifact_ids", "execution_ids")
        record = Record(
            request.type,
            request.name,
            _facts(request),
            json_format.MessageToDict(request.properties),
            list(request.artifact_ids),
            list(request.execution_ids),
        )
        now = now_ms()
        return node_message(CONTEXT, self._store.write(lambda session: record_context(session, record, now)))

    def ListContexts(
        self, request: question_pb2.ListContextsRequest, context: grpc.ServicerContext
    ) -> question_pb2.ListContextsResponse:
        with self._store.read() as session:
            options = _options(request, contexts_filter(request.type, _facts(request)))
            page = _page(session, CONTEXT, options, None, with_deleted=False)
            nodes = session.nodes.in_order(CONTEXT, [stamp.id for stamp in page.stamps])
        return question_pb2.ListContextsResponse(
            contexts=[node_message(CONTEXT, node) for node in nodes], next_page_token=page.next_page_token
        )


def _dag(session: Session, request: question_pb2.GetGraphRequest | question_pb2.RenderGraphRequest) -> Dag:
    return get_dag(session, find_context(session, request.context_id, request.name, request.type))


def _facts(request: Any) -> dict[str, str]:
    facts = {
        OWNER: request.owner,
        COMMIT: request.commit,
        PROJECT: request.project,
        EXPERIMENT: request.experiment,
    }
    return {name: value for name, value in facts.items() if value}


def _options(request: Any, filter_query: str) -> mlpb.ListOperationOptions:
    """Newest first."""
    if not 0 <= request.page_size <= MAX_PAGE:
        raise InvalidArgument(f"must be 0 to {MAX_PAGE}", field="page_size")
    options = mlpb.ListOperationOptions(
        max_result_size=request.page_size or MAX_PAGE, next_page_token=request.page_token, filter_query=filter_query
    )
    options.order_by_field.field = mlpb.ListOperationOptions.OrderByField.ID
    options.order_by_field.is_asc = False
    return options


def _page(
    session: Session, kind: Kind, options: mlpb.ListOperationOptions, type_id: int | None, *, with_deleted: bool
) -> Page:
    where = ("filter", "page_token")
    return list_page(session, kind, options, type_id=type_id, with_deleted=with_deleted, where=where)


def _difference(one: Difference) -> question_pb2.Difference:
    answer = question_pb2.Difference(name=one.name, delta=one.delta)
    if one.left is not MISSING:
        answer.left.CopyFrom(to_value(one.left))
    if one.right is not MISSING:
        answer.right.CopyFrom(to_value(one.right))
    return answer
