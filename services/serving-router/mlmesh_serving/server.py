"""Wires the serving router."""

from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.http2.methods import RawMethod
from mlmesh_kit.server import ServiceDefinition, Servicer
from mlmesh_protos.inference import grpc_service_pb2, grpc_service_pb2_grpc
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2, inference_service_pb2_grpc

from mlmesh_serving.access import ACCESS
from mlmesh_serving.config import Settings
from mlmesh_serving.dataplane import DataPlane
from mlmesh_serving.repository import ModelRepository
from mlmesh_serving.revision import RevisionLoader
from mlmesh_serving.routes import v1_routes, v2_routes
from mlmesh_serving.servicers.control import ControlServicer
from mlmesh_serving.servicers.inference import InferenceServicer, namespace_of
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.store import ServingStore
from mlmesh_serving.tensor import Limits
from mlmesh_serving.workers.host import WorkerHost
from mlmesh_serving.workers.plan import Batching
from mlmesh_serving.workers.pool import PoolLimits


def build(settings: Settings) -> ServiceDefinition:
    """Opens the database and makes the service."""
    engine = create_engine(settings.resolved_database_url)
    migrate(engine, "mlmesh_serving")
    storage = ModelStorage(settings.resolved_model_roots, settings.service_dir / "downloads")
    host = WorkerHost(settings.service_dir, settings.worker_threads, settings.worker_start_seconds)
    loader = RevisionLoader(
        host,
        storage,
        Limits(max_elements=settings.max_tensor_elements, max_tensors=settings.max_tensors),
        Batching(settings.max_batch_rows),
        PoolLimits(
            requests=settings.max_concurrent_inferences,
            timeout_seconds=settings.inference_seconds,
            hang_seconds=settings.hang_seconds,
            resident_bytes=settings.worker_memory_bytes,
        ),
        settings.workers,
    )
    repository = ModelRepository(ServingStore(engine), storage, loader.load, settings.drain_seconds)
    plane = DataPlane(repository)
    inference = InferenceServicer(plane)  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
    return ServiceDefinition(
        name="serving",
        servicers=[
            Servicer(
                grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
                grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server,
                inference,
            ),
            Servicer(
                inference_service_pb2.DESCRIPTOR.services_by_name["ServingService"],
                inference_service_pb2_grpc.add_ServingServiceServicer_to_server,
                ControlServicer(repository, settings.default_namespace),
            ),
        ],
        access=ACCESS,
        http_routes=[*v2_routes(plane), *v1_routes(plane)],
        lifespans=[host.running, repository.running],
        raw_methods={"/inference.GRPCInferenceService/ModelInfer": RawMethod(inference.infer, namespace_of)},
    )
