"""mlmesh.serving.v1.InferenceGraphService: InferenceGraphs."""

from collections.abc import Callable
from typing import Any

from google.protobuf import empty_pb2
from mlmesh_kit.names import parse_resource
from mlmesh_kit.paging import decode_page_token, encode_page_token
from mlmesh_protos.mlmesh.serving.v1 import inference_graph_pb2 as pb
from mlmesh_protos.mlmesh.serving.v1 import inference_graph_pb2_grpc, inference_service_pb2

from mlmesh_serving.graph.repository import GraphRepository, ServedGraph
from mlmesh_serving.servicers.requests import manifest_of, namespace_of, page_size_of

_PATTERN = "namespaces/{namespace}/inferencegraphs/{name}"

ServiceReady = Callable[[str, str], bool | None]
"""Tells whether an InferenceService (namespace, name) answers; None: there is none."""


class InferenceGraphServicer(inference_graph_pb2_grpc.InferenceGraphServiceServicer):
    """Manages InferenceGraphs.

    Args:
        repository: Keeps them.
        service_ready: Of the InferenceServices that they name.
        default_namespace: Whose graphs go by their plain names.
    """

    def __init__(self, repository: GraphRepository, service_ready: ServiceReady, default_namespace: str) -> None:
        self._repository = repository
        self._service_ready = service_ready
        self._default_namespace = default_namespace

    async def CreateInferenceGraph(self, request: pb.CreateInferenceGraphRequest, context: Any) -> pb.InferenceGraph:
        namespace = namespace_of(request.parent)
        manifest = manifest_of(request.manifest, namespace, "InferenceGraph")
        return self._proto(await self._repository.create(namespace, manifest))

    async def GetInferenceGraph(self, request: pb.GetInferenceGraphRequest, context: Any) -> pb.InferenceGraph:
        parts = parse_resource(request.name, _PATTERN)
        return self._proto(self._repository.get(parts["namespace"], parts["name"]))

    async def ListInferenceGraphs(
        self, request: pb.ListInferenceGraphsRequest, context: Any
    ) -> pb.ListInferenceGraphsResponse:
        namespace = namespace_of(request.parent)
        size = page_size_of(request.page_size)
        query = ["inferencegraphs", namespace]
        after = decode_page_token(request.page_token, query) or ""
        mine = [served for served in self._repository.list(namespace) if served.stored.name > after]
        response = pb.ListInferenceGraphsResponse(inference_graphs=[self._proto(served) for served in mine[:size]])
        if len(mine) > size:
            response.next_page_token = encode_page_token(mine[size - 1].stored.name, query)
        return response

    async def UpdateInferenceGraph(self, request: pb.UpdateInferenceGraphRequest, context: Any) -> pb.InferenceGraph:
        parts = parse_resource(request.name, _PATTERN)
        manifest = manifest_of(request.manifest, parts["namespace"], "InferenceGraph")
        return self._proto(await self._repository.update(parts["namespace"], parts["name"], manifest))

    async def DeleteInferenceGraph(self, request: pb.DeleteInferenceGraphRequest, context: Any) -> empty_pb2.Empty:
        parts = parse_resource(request.name, _PATTERN)
        await self._repository.delete(parts["namespace"], parts["name"])
        return empty_pb2.Empty()

    def _proto(self, served: ServedGraph) -> pb.InferenceGraph:
        stored = served.stored
        plain = stored.namespace == self._default_namespace
        called = stored.name if plain else f"{stored.namespace}.{stored.name}"
        result = pb.InferenceGraph(
            name=f"namespaces/{stored.namespace}/inferencegraphs/{stored.name}",
            status=pb.InferenceGraphStatus(
                conditions=[self._condition(served)], url=f"/v1/graphs/{called}:infer", generation=stored.generation
            ),
        )
        result.manifest.update(stored.manifest)
        return result

    def _condition(self, served: ServedGraph) -> inference_service_pb2.Condition:
        status, reason, message = self._readiness(served)
        condition = inference_service_pb2.Condition(type="Ready", status=status, reason=reason, message=message)
        condition.last_transition_time.FromMilliseconds(served.stored.changed_ms)
        return condition

    def _readiness(self, served: ServedGraph) -> tuple[str, str, str]:
        if served.graph is None:
            return "False", "NotAllowed", served.problem
        states = {name: self._service_ready(served.stored.namespace, name) for name in served.graph.services}
        missing = sorted(name for name, state in states.items() if state is None)
        if missing:
            return "False", "ServiceNotFound", f"there is no InferenceService {', '.join(missing)}"
        waiting = sorted(name for name, state in states.items() if not state)
        if waiting:
            return "False", "ServiceNotReady", f"not ready: {', '.join(waiting)}"
        return "True", "ServicesReady", ""
