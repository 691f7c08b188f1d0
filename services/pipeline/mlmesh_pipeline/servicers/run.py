"""RunService."""

from typing import Any

from google.protobuf import empty_pb2
from mlmesh_kit.access import require
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from mlmesh_kit.identity import current_caller
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2, run_pb2_grpc

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.artifacts import ArtifactReader
from mlmesh_pipeline.resources import Run, StorageState
from mlmesh_pipeline.runs import NewRun, Runs
from mlmesh_pipeline.servicers.convert import (
    list_query,
    parameters_of,
    plugins_input_of,
    run_details,
    run_message,
    struct,
)
from mlmesh_pipeline.servicers.sources import Sources
from mlmesh_pipeline.store import ExperimentStore, RunStore, TaskStore

_MAX_ARTIFACT_BYTES = 32 << 20


class RunServicer(run_pb2_grpc.RunServiceServicer):
    """Serves runs.

    Args:
        runs: Creates and changes them.
        sources: Finds what requests name.
        store, tasks, experiment_store: The database.
        reader: Reads artifacts.
    """

    def __init__(
        self,
        runs: Runs,
        sources: Sources,
        *,
        store: RunStore,
        tasks: TaskStore,
        experiment_store: ExperimentStore,
        reader: ArtifactReader,
    ) -> None:
        self._runs = runs
        self._sources = sources
        self._store = store
        self._tasks = tasks
        self._experiment_store = experiment_store
        self._reader = reader

    def CreateRun(self, request: Any, context: Any) -> run_pb2.Run:
        asked = request.run
        experiment = self._sources.experiment(asked.experiment_id or request.experiment_id, "runs")
        spec, version = self._sources.pipeline(asked, "run")
        new = NewRun(
            display_name=asked.display_name,
            parameters=parameters_of(asked.runtime_config),
            description=asked.description,
            pipeline_root=asked.runtime_config.pipeline_root,
            service_account=asked.service_account,
            creator=current_caller().user,
            plugins_input=plugins_input_of(asked),
        )
        return self._message(self._runs.create(experiment, new, spec, version))

    def GetRun(self, request: Any, context: Any) -> run_pb2.Run:
        return self._message(self._visible("get", request.run_id))

    def ListRuns(self, request: Any, context: Any) -> run_pb2.ListRunsResponse:
        query = list_query(request)
        namespace = request.namespace
        if request.experiment_id:
            experiment = self._experiment_store.get(request.experiment_id)
            require_visible("get", "experiments", experiment.namespace, "experiment", request.experiment_id)
            namespace = experiment.namespace
        namespace = require("list", "runs", namespace) or current_caller().default_namespace
        page = self._store.page(namespace, request.experiment_id, query)
        history = self._store.history([run.run_id for run in page.items])
        found = self._store.specs({run.spec_digest for run in page.items if not run.version_id})
        specs = {digest: struct(spec) for digest, spec in found.items()}  # once for all runs of a pipeline
        return run_pb2.ListRunsResponse(
            runs=[run_message(run, specs.get(run.spec_digest), history[run.run_id]) for run in page.items],
            total_size=page.total_size,
            next_page_token=page.next_page_token,
        )

    def ArchiveRun(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._store.set_storage(self._visible("archive", request.run_id).run_id, StorageState.ARCHIVED)
        return empty_pb2.Empty()

    def UnarchiveRun(self, request: Any, context: Any) -> empty_pb2.Empty:
        run = self._visible("unarchive", request.run_id)
        try:
            experiment = self._experiment_store.get(run.experiment_id)
        except NotFound:
            experiment = None
        if experiment is not None and experiment.storage_state == StorageState.ARCHIVED:
            raise FailedPrecondition(f"experiment {experiment.display_name!r} is archived; unarchive it first")
        self._store.set_storage(run.run_id, StorageState.AVAILABLE)
        return empty_pb2.Empty()

    def DeleteRun(self, request: Any, context: Any) -> empty_pb2.Empty:
        run = self._visible("delete", request.run_id)
        self._runs.delete(run.run_id, run.state)
        return empty_pb2.Empty()

    def TerminateRun(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._runs.terminate(self._visible("terminate", request.run_id).run_id)
        return empty_pb2.Empty()

    def RetryRun(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._runs.retry(self._visible("retry", request.run_id).run_id)
        return empty_pb2.Empty()

    def ReadArtifact(self, request: Any, context: Any) -> run_pb2.ReadArtifactResponse:
        run = self._visible("readArtifact", request.run_id)
        task = self._tasks.get(run.run_id, request.node_id)
        items = task.outputs.artifacts.get(request.artifact_name)
        if not items:
            raise NotFound("artifact", request.artifact_name)
        content = self._reader.content(items[0])
        if content.size > _MAX_ARTIFACT_BYTES:
            raise ResourceExhausted(f"artifact {request.artifact_name!r} is larger than {_MAX_ARTIFACT_BYTES} bytes")
        with content.open(0, content.size) as stream:
            return run_pb2.ReadArtifactResponse(data=stream.read(_MAX_ARTIFACT_BYTES))

    def _visible(self, verb: str, run_id: str) -> Run:
        if not run_id:
            raise InvalidArgument("is required", field="run_id")
        found = self._store.get(run_id)
        require_visible(verb, "runs", found.namespace, "run", run_id)
        return found

    def _message(self, run: Run) -> run_pb2.Run:
        spec = struct(self._store.spec(run.spec_digest)) if not run.version_id else None
        message = run_message(run, spec, self._store.history([run.run_id])[run.run_id])
        tasks = self._tasks.of_run(run.run_id)
        details = run_details(
            run,
            tasks,
            self._tasks.attempts_of(run.run_id),
            self._tasks.history(run.run_id),
            self._tasks.metadata_ids(run.run_id),
        )
        message.run_details.CopyFrom(details)
        return message
