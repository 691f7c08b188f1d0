"""Wires the serving router."""

import os

from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.server import ServiceDefinition, Servicer
from mlmesh_protos.inference import grpc_service_pb2, grpc_service_pb2_grpc
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2, inference_service_pb2_grpc

from mlmesh_serving.access import ACCESS
from mlmesh_serving.config import Settings
from mlmesh_serving.dataplane import DataPlane
from mlmesh_serving.repository import ModelRepository
from mlmesh_serving.routes import v1_routes, v2_routes
from mlmesh_serving.servicers.control import ControlServicer
from mlmesh_serving.servicers.inference import InferenceServicer
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.store import ServingStore
from mlmesh_serving.tensor import Limits
from mlmesh_serving.worker import Workers


def build(settings: Settings) -> ServiceDefinition:
    """Opens the database and makes the service."""
    engine = create_engine(settings.resolved_database_url)
    migrate(engine, "mlmesh_serving")
    storage = ModelStorage(settings.storage)
    repository = ModelRepository(ServingStore(engine), storage)
    workers = Workers(settings.inference_threads or max(2, os.cpu_count() or 1))
    limits = Limits(max_elements=settings.max_tensor_elements, max_tensors=settings.max_tensors)
    plane = DataPlane(repository, workers, limits, settings.max_concurrent_inferences)
    return ServiceDefinition(
        name="serving",
        servicers=[
            Servicer(
                grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
                grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server,
                InferenceServicer(plane),  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
            ),
            Servicer(
                inference_service_pb2.DESCRIPTOR.services_by_name["ServingService"],
                inference_service_pb2_grpc.add_ServingServiceServicer_to_server,
                ControlServicer(repository, settings.default_namespace),
            ),
        ],
        access=ACCESS,
        http_routes=[*v2_routes(plane), *v1_routes(plane)],
        lifespans=[workers.running, repository.running],
    )
