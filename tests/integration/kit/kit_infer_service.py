"""A service of the Open Inference Protocol that answers with its inputs: `python -m kit_infer_service`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from mlmesh_kit.access import PUBLIC
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.errors import NotFound
from mlmesh_kit.http2.call import UnaryCall
from mlmesh_kit.http2.methods import RawMethod
from mlmesh_kit.server import ServiceDefinition, Servicer, serve
from mlmesh_protos.inference import grpc_service_pb2 as pb
from mlmesh_protos.inference import grpc_service_pb2_grpc as pb_grpc
from pydantic_settings import SettingsConfigDict

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class Settings(ServiceSettings):
    """`MLMESH_INFER_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_INFER_", extra="ignore")
    service: ClassVar[str] = "infer"


def _mirror(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    answer = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    answer.raw_output_contents.extend(request.raw_input_contents)
    return answer


class Inference(pb_grpc.GRPCInferenceServiceServicer):
    """What is relayed to grpc.aio."""

    async def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for request in requests:
            yield pb.ModelStreamInferResponse(infer_response=_mirror(request))


def build(settings: Settings) -> ServiceDefinition:
    """Makes the service."""
    mark = settings.service_dir / "drains"

    async def infer(message: bytes, call: UnaryCall) -> bytes:
        request = pb.ModelInferRequest.FromString(message)
        if request.model_name == "slow":
            await asyncio.sleep(5)
        if request.model_name == "drain":
            with mark.open("ab") as file:
                file.write(b".")
            await asyncio.sleep(1)
        if request.model_name == "nothing":
            raise NotFound("model", request.model_name)
        answer = _mirror(request)
        for name, value in call.metadata:
            if name == "x-told":
                answer.parameters["told"].string_param = str(value)
        return answer.SerializeToString()

    return ServiceDefinition(
        name="infer",
        servicers=[
            Servicer(SERVICE, pb_grpc.add_GRPCInferenceServiceServicer_to_server, Inference())  # type: ignore[abstract]
        ],
        access={SERVICE.full_name: {method.name: PUBLIC for method in SERVICE.methods}},
        raw_methods={f"/{SERVICE.full_name}/ModelInfer": RawMethod(infer)},
    )


if __name__ == "__main__":
    raise SystemExit(serve(build, Settings))
