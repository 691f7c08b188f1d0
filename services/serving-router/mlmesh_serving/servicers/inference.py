"""inference.GRPCInferenceService: the Open Inference Protocol by gRPC."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from mlmesh_kit.access import arequire
from mlmesh_kit.errors import InvalidArgument, NotFound, ServiceError
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_protos.inference import grpc_service_pb2_grpc

from mlmesh_serving import __version__
from mlmesh_serving.access import RESOURCE
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.codecs.scan import read_head
from mlmesh_serving.dataplane import EXTENSIONS, SERVER_NAME, DataPlane, split_model_name
from mlmesh_serving.futures import mapped
from mlmesh_serving.headers import LazyHeaders
from mlmesh_serving.repository import State

if TYPE_CHECKING:
    from mlmesh_kit.http2.call import UnaryCall


class InferenceServicer(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """The data plane's gRPC door.

    Args:
        dataplane: Answers.
    """

    def __init__(self, dataplane: DataPlane) -> None:
        self._plane = dataplane

    async def ServerLive(self, request: Any, context: Any) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=self._plane.is_server_ready())

    async def ServerMetadata(self, request: Any, context: Any) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Any) -> oip.ModelReadyResponse:
        try:
            return oip.ModelReadyResponse(ready=self._plane.is_ready(request.name, request.version))
        except NotFound:  # to this question, "there is none" is the answer "no"
            return oip.ModelReadyResponse(ready=False)

    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Any) -> oip.ModelMetadataResponse:
        found = self._plane.metadata(request.name, request.version)
        tensor = oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=found.name,
            versions=found.versions,
            platform=found.platform,
            inputs=[tensor(name=i.name, datatype=i.datatype, shape=i.shape) for i in found.inputs],
            outputs=[tensor(name=o.name, datatype=o.datatype, shape=o.shape) for o in found.outputs],
        )

    def infer(self, body: bytes, call: "UnaryCall") -> "asyncio.Future[bytes]":
        """ModelInfer, as bytes: what is asked, and of whom, is all that is read of them here."""
        head = read_head(body)
        headers = LazyHeaders(lambda: call.metadata)
        request = WireRequest(Door.GRPC, head.model, body, headers=headers, deadline=call.deadline)
        return mapped(self._plane.submit(request, head.version), _body)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[oip.ModelInferRequest], context: Any
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        async for request in request_iterator:
            try:
                namespace = await arequire("infer", RESOURCE, split_model_name(request.model_name)[0])
                headers = LazyHeaders(context.invocation_metadata)
                wire = WireRequest(Door.GRPC, request.model_name, request.SerializeToString(), headers=headers)
                answer = await self._plane.submit(wire, request.model_version, namespace)
                found = oip.ModelInferResponse.FromString(answer.body)
                yield oip.ModelStreamInferResponse(infer_response=found)
            except ServiceError as error:  # one bad request does not end the stream
                failed = oip.ModelInferResponse(id=request.id, model_name=request.model_name)
                yield oip.ModelStreamInferResponse(error_message=error.message, infer_response=failed)

    async def RepositoryIndex(self, request: oip.RepositoryIndexRequest, context: Any) -> oip.RepositoryIndexResponse:
        _only_repository(request.repository_name)
        response = oip.RepositoryIndexResponse()
        for served in self._plane.index(ready_only=request.ready):
            state = "READY" if served.is_answering else "UNAVAILABLE"
            response.models.add(
                name=served.stored.name,  # found again by it: the caller's default namespace is listed
                version=str(served.ready_revision or served.stored.revision),
                state="LOADING" if served.state is State.LOADING and not served.is_answering else state,
                reason=served.message,
            )
        return response

    async def RepositoryModelLoad(
        self, request: oip.RepositoryModelLoadRequest, context: Any
    ) -> oip.RepositoryModelLoadResponse:
        _only_repository(request.repository_name)
        if request.parameters:
            raise InvalidArgument("are not known; a model is configured by its InferenceService", field="parameters")
        await self._plane.load(request.model_name)
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: oip.RepositoryModelUnloadRequest, context: Any
    ) -> oip.RepositoryModelUnloadResponse:
        _only_repository(request.repository_name)
        await self._plane.unload(request.model_name)
        return oip.RepositoryModelUnloadResponse()


def _only_repository(name: str) -> None:
    if name:
        raise InvalidArgument("must be empty: there is one repository", field="repository_name")


def namespace_of(body: bytes) -> str:
    """Reads the namespace from the model's name in a serialized ModelInferRequest."""
    return split_model_name(read_head(body).model)[0]


def _body(answer: WireAnswer) -> bytes:
    return answer.body
