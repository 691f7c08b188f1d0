"""Wires the service."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.lease import LeaseStore
from mlmesh_kit.server import ServiceDefinition, Servicer
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    auth_pb2,
    auth_pb2_grpc,
    experiment_pb2,
    experiment_pb2_grpc,
    filter_pb2,
    filter_pb2_grpc,
    healthz_pb2,
    healthz_pb2_grpc,
    pipeline_pb2,
    pipeline_pb2_grpc,
    recurring_run_pb2,
    recurring_run_pb2_grpc,
    report_pb2,
    report_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    visualization_pb2,
    visualization_pb2_grpc,
)
from mlmesh_protos.mlmesh.pipeline.v1 import run_analysis_pb2, run_analysis_pb2_grpc

from mlmesh_pipeline.access import ACCESS
from mlmesh_pipeline.analysis.run_analysis import RunAnalysis
from mlmesh_pipeline.artifact_stores import ArtifactStores
from mlmesh_pipeline.artifacts import ArtifactReader
from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine.driver import Stores
from mlmesh_pipeline.engine.output_look import OutputLook
from mlmesh_pipeline.engine.paths import file_path
from mlmesh_pipeline.engine.scheduler import Scheduler
from mlmesh_pipeline.experiments import Experiments
from mlmesh_pipeline.fetch import PackageFetcher
from mlmesh_pipeline.lineage.publisher import Publisher
from mlmesh_pipeline.pipelines import Pipelines
from mlmesh_pipeline.recurring.timer import Timer
from mlmesh_pipeline.recurring_runs import RecurringRuns
from mlmesh_pipeline.routes.artifacts import ArtifactRoutes
from mlmesh_pipeline.routes.files import FileRoutes
from mlmesh_pipeline.routes.upload import UploadRoutes
from mlmesh_pipeline.runs import Runs
from mlmesh_pipeline.servicers.experiment import ExperimentServicer
from mlmesh_pipeline.servicers.pipeline import PipelineServicer
from mlmesh_pipeline.servicers.recurring_run import RecurringRunServicer
from mlmesh_pipeline.servicers.run import RunServicer
from mlmesh_pipeline.servicers.run_analysis import RunAnalysisServicer
from mlmesh_pipeline.servicers.sources import Sources
from mlmesh_pipeline.servicers.system import AuthServicer, FilterServicer, HealthzServicer
from mlmesh_pipeline.servicers.unserved import ReportServicer, VisualizationServicer
from mlmesh_pipeline.store import (
    CacheStore,
    ExecutionStore,
    ExperimentStore,
    OutboxStore,
    PipelineStore,
    RecurringRunStore,
    RunStore,
    TaskStore,
)
from mlmesh_pipeline.store.owner import free_leases_of_the_dead
from mlmesh_pipeline.tables import leases

if TYPE_CHECKING:
    from mlmesh_pipeline.argo.backend import ArgoBackend


def build(settings: Settings) -> ServiceDefinition:
    """Makes the service of its settings; brings the database up to date."""
    database = create_engine(settings.resolved_database_url)
    migrate(database, "mlmesh_pipeline")
    free_leases_of_the_dead(database)
    experiment_store, pipeline_store = ExperimentStore(database), PipelineStore(database)
    run_store, task_store = RunStore(database), TaskStore(database)
    lease_store = LeaseStore(database, leases)
    timer = Timer(settings.scan_seconds)
    stores = Stores(run_store, task_store, CacheStore(database))
    argo = _argo(settings, stores)
    scheduler = Scheduler(settings, stores, lease_store, timer.wake, argo.driver if argo else None)
    experiments, pipelines = Experiments(experiment_store), Pipelines(pipeline_store)
    work_root = settings.service_dir / "runs"
    artifact_stores = ArtifactStores(settings)
    runs = Runs(
        run_store,
        artifact_stores,
        work_root,
        scheduler.wake,
        settings.allowed_commands,
        machine=settings.machine,
        elsewhere=argo,
    )
    publisher = Publisher(settings, OutboxStore(database), run_store, task_store, lease_store)
    uploads = UploadRoutes(pipelines, pipeline_store, settings.max_package_bytes)
    files = FileRoutes(run_store, task_store, work_root, argo.logs if argo else None)
    reader = ArtifactReader(artifact_stores, settings.link_seconds, _folders(settings))
    artifacts = ArtifactRoutes(run_store, task_store, reader)
    recurring_store = RecurringRunStore(database)
    recurring = RecurringRuns(
        recurring_store,
        runs,
        experiments=experiment_store,
        pipelines=pipeline_store,
        zone=settings.cron_schedule_timezone,
        wake=timer.wake,
    )
    timer.fire = recurring.fire
    sources = Sources(experiments, experiment_store, pipeline_store)
    run_servicer = RunServicer(
        runs, sources, store=run_store, tasks=task_store, experiment_store=experiment_store, reader=reader
    )
    analysis = RunAnalysis(run_store, task_store, ExecutionStore(database), runs, OutputLook(artifact_stores))
    analysis_servicer = RunAnalysisServicer(analysis, sources, run_store, pipeline_store)
    fetcher = PackageFetcher(settings.package_hosts, settings.max_package_bytes)
    pipeline_servicer = PipelineServicer(pipelines, pipeline_store, fetcher, settings.max_package_bytes)
    recurring_servicer = RecurringRunServicer(recurring, sources, recurring_store, experiment_store)
    table: list[tuple[Any, Any, str, Any]] = [
        (pipeline_pb2, pipeline_pb2_grpc, "PipelineService", pipeline_servicer),
        (experiment_pb2, experiment_pb2_grpc, "ExperimentService", ExperimentServicer(experiments, experiment_store)),
        (run_pb2, run_pb2_grpc, "RunService", run_servicer),
        (run_analysis_pb2, run_analysis_pb2_grpc, "RunAnalysisService", analysis_servicer),
        (healthz_pb2, healthz_pb2_grpc, "HealthzService", HealthzServicer()),
        (auth_pb2, auth_pb2_grpc, "AuthService", AuthServicer()),
        (filter_pb2, filter_pb2_grpc, "DummyFilterService", FilterServicer()),
        (recurring_run_pb2, recurring_run_pb2_grpc, "RecurringRunService", recurring_servicer),
        (report_pb2, report_pb2_grpc, "ReportService", ReportServicer()),
        (visualization_pb2, visualization_pb2_grpc, "VisualizationService", VisualizationServicer()),
    ]
    return ServiceDefinition(
        name=settings.service,
        servicers=[
            Servicer(
                messages.DESCRIPTOR.services_by_name[name], getattr(stubs, f"add_{name}Servicer_to_server"), servicer
            )
            for messages, stubs, name, servicer in table
        ],
        access=ACCESS,
        http_routes=[*uploads.routes(), *files.routes(), *artifacts.routes()],
        lifespans=[publisher.running, *([argo.running] if argo else []), scheduler.running, timer.running],
    )


def _folders(settings: Settings) -> list[Path] | None:
    """Gives where artifacts may be read on this machine; None: everywhere, since tasks run here and can do so, too."""
    if settings.backend == "local":
        return None
    root = file_path(settings.resolved_artifact_root)
    return [root] if root is not None else []


def _argo(settings: Settings, stores: Stores) -> "ArgoBackend | None":
    if settings.backend != "argo":
        return None
    from mlmesh_pipeline.argo.wiring import build_backend  # the client of Kubernetes is slow to import

    return build_backend(settings, stores)
