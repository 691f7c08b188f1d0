"""mlmesh.serving.v1.ServingService: InferenceServices."""

from typing import Any

from google.protobuf import empty_pb2
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import parse_resource
from mlmesh_kit.paging import decode_page_token, encode_page_token
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as pb
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2_grpc

from mlmesh_serving.repository import ModelRepository, Served
from mlmesh_serving.servicers.requests import manifest_of, namespace_of, page_size_of
from mlmesh_serving.servicers.status import revision_message, status_of
from mlmesh_serving.servicers.traffic_messages import read_traffic
from mlmesh_serving.store import StoredService
from mlmesh_serving.traffic.control import TrafficControl
from mlmesh_serving.traffic.rollout import Rollout

_PATTERN = "namespaces/{namespace}/inferenceservices/{name}"


class ControlServicer(inference_service_pb2_grpc.ServingServiceServicer):
    """Manages InferenceServices.

    Args:
        repository: Keeps and loads them.
        default_namespace: Whose models go by their plain names.
        control: Spreads requests over revisions.
    """

    def __init__(self, repository: ModelRepository, default_namespace: str, control: TrafficControl) -> None:
        self._repository = repository
        self._default_namespace = default_namespace
        self._control = control

    async def CreateInferenceService(
        self, request: pb.CreateInferenceServiceRequest, context: Any
    ) -> pb.InferenceService:
        namespace = namespace_of(request.parent)
        manifest = manifest_of(request.manifest, namespace, "InferenceService")
        return self._proto(await self._repository.create(namespace, manifest))

    async def GetInferenceService(self, request: pb.GetInferenceServiceRequest, context: Any) -> pb.InferenceService:
        parts = parse_resource(request.name, _PATTERN)
        return self._proto(self._repository.get(parts["namespace"], parts["name"]))

    async def ListInferenceServices(
        self, request: pb.ListInferenceServicesRequest, context: Any
    ) -> pb.ListInferenceServicesResponse:
        namespace = namespace_of(request.parent)
        size = page_size_of(request.page_size)
        after = decode_page_token(request.page_token, namespace) or ""
        mine = [s for s in self._repository.list() if s.stored.namespace == namespace and s.stored.name > after]
        response = pb.ListInferenceServicesResponse(inference_services=[self._proto(s) for s in mine[:size]])
        if len(mine) > size:
            response.next_page_token = encode_page_token(mine[size - 1].stored.name, namespace)
        return response

    async def UpdateInferenceService(
        self, request: pb.UpdateInferenceServiceRequest, context: Any
    ) -> pb.InferenceService:
        parts = parse_resource(request.name, _PATTERN)
        manifest = manifest_of(request.manifest, parts["namespace"], "InferenceService")
        given = (manifest.get("metadata") or {}).get("name")
        if given != parts["name"]:
            raise InvalidArgument(f"must be {parts['name']!r}, as in name", field="manifest.metadata.name")
        return self._proto(await self._repository.update(parts["namespace"], parts["name"], manifest))

    async def DeleteInferenceService(self, request: pb.DeleteInferenceServiceRequest, context: Any) -> empty_pb2.Empty:
        parts = parse_resource(request.name, _PATTERN)
        await self._repository.delete(parts["namespace"], parts["name"])
        return empty_pb2.Empty()

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Any) -> pb.ListRevisionsResponse:
        namespace, name = _service(request.parent, "parent")
        size = page_size_of(request.page_size)
        before = decode_page_token(request.page_token, request.parent)
        rollout = self._control.rollout(namespace, name)
        found = await self._control.revisions(namespace, name, before, size + 1)
        response = pb.ListRevisionsResponse(revisions=[revision_message(each, rollout) for each in found[:size]])
        if len(found) > size:
            response.next_page_token = encode_page_token(found[size - 1].number, request.parent)
        return response

    async def GetRevision(self, request: pb.GetRevisionRequest, context: Any) -> pb.Revision:
        parts = parse_resource(request.name, f"{_PATTERN}/revisions/{{revision}}")
        found = await self._control.revision(parts["namespace"], parts["name"], parts["revision"])
        return revision_message(found, self._control.rollout(found.namespace, found.name))

    async def SetTraffic(self, request: pb.SetTrafficRequest, context: Any) -> pb.InferenceService:
        namespace, name = _service(request.name)
        control = self._control
        traffic = read_traffic(request.traffic, lambda revision: control.number(namespace, name, revision))
        return self._message(*await control.set_traffic(namespace, name, traffic))

    async def Promote(self, request: pb.PromoteRequest, context: Any) -> pb.InferenceService:
        return self._message(*await self._control.promote(*_service(request.name), request.revision))

    async def Rollback(self, request: pb.RollbackRequest, context: Any) -> pb.InferenceService:
        return self._message(*await self._control.roll_back(*_service(request.name), request.revision))

    def _model(self, stored: StoredService) -> str:
        plain = stored.namespace == self._default_namespace
        return stored.name if plain else f"{stored.namespace}.{stored.name}"

    def _message(self, stored: StoredService, rollout: Rollout[Any] | None) -> pb.InferenceService:
        made = pb.InferenceService(
            name=f"namespaces/{stored.namespace}/inferenceservices/{stored.name}",
            status=status_of(stored, rollout, self._model(stored)),
        )
        made.manifest.update(stored.manifest)
        return made

    def _proto(self, served: Served) -> pb.InferenceService:
        return self._message(served.stored, self._control.rollout(served.stored.namespace, served.stored.name))


def _service(name: str, field: str = "name") -> tuple[str, str]:
    parts = parse_resource(name, _PATTERN, field)
    return parts["namespace"], parts["name"]
