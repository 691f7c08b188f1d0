"""Wires the serving router."""

from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.http2.methods import RawMethod
from mlmesh_kit.machine import cpu_count
from mlmesh_kit.server import ServiceDefinition, Servicer
from mlmesh_protos.inference import grpc_service_pb2, grpc_service_pb2_grpc
from mlmesh_protos.mlmesh.serving.v1 import (
    inference_graph_pb2,
    inference_graph_pb2_grpc,
    inference_service_pb2,
    inference_service_pb2_grpc,
)

from mlmesh_serving.access import ACCESS
from mlmesh_serving.beside import Beside
from mlmesh_serving.companion import CompanionLauncher
from mlmesh_serving.config import Settings
from mlmesh_serving.dataplane import DataPlane
from mlmesh_serving.datatypes import Limits
from mlmesh_serving.explainers.backend import MODULE as EXPLAINER_MODULE
from mlmesh_serving.graph.repository import GraphRepository
from mlmesh_serving.graph.router import GraphRouter
from mlmesh_serving.graph.store import GraphStore
from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.observers.observers import MODULE as OBSERVER_MODULE
from mlmesh_serving.observers.observers import Observers
from mlmesh_serving.protection.front import Fronts
from mlmesh_serving.remote.stages import RemoteStages
from mlmesh_serving.repository import ModelRepository
from mlmesh_serving.revision import Revision, RevisionLoader
from mlmesh_serving.routes import graph_routes, openai_routes, v1_raw_routes, v1_routes, v2_raw_routes, v2_routes
from mlmesh_serving.routes.detectors import detector_routes
from mlmesh_serving.routes.explain import explain_routes
from mlmesh_serving.scaling.scaler import Scaler, ScalerSettings
from mlmesh_serving.seeding import Seeding
from mlmesh_serving.servicers.control import ControlServicer
from mlmesh_serving.servicers.graph import InferenceGraphServicer
from mlmesh_serving.servicers.inference import InferenceServicer, namespace_of
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.store import ServingStore, StoredRevision
from mlmesh_serving.traffic.control import TrafficControl
from mlmesh_serving.workers.host import WorkerHost
from mlmesh_serving.workers.plan import Batching
from mlmesh_serving.workers.pool import PoolLimits


def build(settings: Settings) -> ServiceDefinition:
    """Opens the database and makes the service."""
    engine = create_engine(settings.resolved_database_url)
    migrate(engine, "mlmesh_serving")
    storage = ModelStorage(settings.storage)
    connections = settings.connections()
    limits = Limits(max_elements=settings.max_tensor_elements, max_tensors=settings.max_tensors)
    host = WorkerHost(settings.service_dir, settings.worker_threads, settings.worker_start_seconds)
    scaler = Scaler(ScalerSettings(settings.max_replicas or max(4, int(2 * cpu_count()))))
    fronts = Fronts(scaler, settings.fronts)
    stages = RemoteStages(connections, limits, fronts)
    loader = RevisionLoader(
        host,
        storage,
        limits,
        Batching(settings.max_batch_rows),
        PoolLimits(
            requests=settings.max_concurrent_inferences,
            timeout_seconds=settings.inference_seconds,
            hang_seconds=settings.hang_seconds,
            crash_retries=settings.crash_retries,
            resident_bytes=settings.worker_memory_bytes,
        ),
        fronts,
        stages,
    )
    store = ServingStore(engine, settings.revisions_kept)
    watchers, explainers = CompanionLauncher(OBSERVER_MODULE), CompanionLauncher(EXPLAINER_MODULE)
    observers = Observers(watchers, settings.observers(limits.max_elements, limits.max_tensors))
    beside = Beside(
        observers, explainers, storage, settings.service_dir / "explainers", settings.explainer_memory_bytes
    )

    async def load(stored: StoredRevision, spec: InferenceServiceSpec) -> Revision:
        return await beside.attach(stored, spec, await loader.load(stored, spec))

    repository = ModelRepository(store, storage, load, stages, settings.drain_seconds, fronts.forget, beside.check)
    plane = DataPlane(repository)
    inference = InferenceServicer(plane)  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
    graphs = GraphRepository(GraphStore(engine), connections.hosts)
    graph_router = GraphRouter(lambda namespace, _, request: plane.submit(request, "", namespace), connections)
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
                ControlServicer(repository, settings.default_namespace, TrafficControl(store, repository)),
            ),
            Servicer(
                inference_graph_pb2.DESCRIPTOR.services_by_name["InferenceGraphService"],
                inference_graph_pb2_grpc.add_InferenceGraphServiceServicer_to_server,
                InferenceGraphServicer(graphs, plane.state_of, settings.default_namespace),
            ),
        ],
        access=ACCESS,
        http_routes=[
            *explain_routes(plane.explain),
            *detector_routes(observers),
            *v2_routes(plane),
            *v1_routes(plane),
            *graph_routes(graphs, graph_router),
            *openai_routes(plane.openai_server, plane.openai_models),
        ],
        lifespans=[
            host.running,
            scaler.running,
            connections.running,
            lambda: watchers,
            lambda: explainers,
            observers.running,
            repository.running,
            graphs.running,
            Seeding(repository, settings.default_namespace, settings.manifest).running,
        ],
        raw_routes=[*v2_raw_routes(plane), *v1_raw_routes(plane)],
        raw_methods={"/inference.GRPCInferenceService/ModelInfer": RawMethod(inference.infer, namespace_of)},
    )
