"""RecurringRunService."""

from typing import Any

from google.protobuf import empty_pb2
from mlmesh_kit.access import require
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.identity import current_caller
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import recurring_run_pb2, recurring_run_pb2_grpc

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.recurring.schedule import Trigger
from mlmesh_pipeline.recurring_runs import NewRecurringRun, RecurringRuns
from mlmesh_pipeline.resources import RecurringRun
from mlmesh_pipeline.runs import NewRun
from mlmesh_pipeline.servicers.convert import list_query, parameters_of, plugins_input_of, recurring_message, struct
from mlmesh_pipeline.servicers.sources import Sources
from mlmesh_pipeline.store import ExperimentStore, RecurringRunStore

_MODE = recurring_run_pb2.RecurringRun.Mode


class RecurringRunServicer(recurring_run_pb2_grpc.RecurringRunServiceServicer):
    """Serves recurring runs.

    Args:
        recurring: Creates and changes them.
        sources: Finds what requests name.
        store, experiments: The database.
    """

    def __init__(
        self, recurring: RecurringRuns, sources: Sources, store: RecurringRunStore, experiments: ExperimentStore
    ) -> None:
        self._recurring = recurring
        self._sources = sources
        self._store = store
        self._experiments = experiments

    def CreateRecurringRun(self, request: Any, context: Any) -> recurring_run_pb2.RecurringRun:
        asked = request.recurring_run
        experiment = self._sources.experiment(asked.experiment_id, "jobs", asked.namespace)
        if asked.namespace and asked.namespace != experiment.namespace:
            message = f"must be that of the experiment, {experiment.namespace!r}, or empty"
            raise InvalidArgument(message, field="recurring_run.namespace")
        spec, version = self._sources.pipeline(asked, "recurring_run")
        run = NewRun(
            display_name=asked.display_name,
            parameters=parameters_of(asked.runtime_config),
            description=asked.description,
            pipeline_root=asked.runtime_config.pipeline_root,
            service_account=asked.service_account,
            creator=current_caller().user,
            plugins_input=plugins_input_of(asked),
        )
        if asked.mode not in _MODE.values():
            raise InvalidArgument("must be ENABLE or DISABLE", field="recurring_run.mode")
        new = NewRecurringRun(
            run=run,
            trigger=_trigger(asked.trigger),
            max_concurrency=asked.max_concurrency,
            no_catchup=asked.no_catchup,
            enabled=asked.mode != _MODE.DISABLE,
            follows=not (asked.pipeline_version_id or asked.pipeline_version_reference.pipeline_version_id),
        )
        return self._message(self._recurring.create(experiment, new, spec, version))

    def GetRecurringRun(self, request: Any, context: Any) -> recurring_run_pb2.RecurringRun:
        return self._message(self._visible("get", request.recurring_run_id))

    def ListRecurringRuns(self, request: Any, context: Any) -> recurring_run_pb2.ListRecurringRunsResponse:
        query = list_query(request)
        namespace = request.namespace
        if request.experiment_id:
            experiment = self._experiments.get(request.experiment_id)
            require_visible("get", "experiments", experiment.namespace, "experiment", request.experiment_id)
            namespace = experiment.namespace
        namespace = require("list", "jobs", namespace) or current_caller().default_namespace
        page = self._store.page(namespace, request.experiment_id, query)
        found = self._store.specs({one.spec_digest for one in page.items if one.spec_digest})
        specs = {digest: struct(spec) for digest, spec in found.items()}
        return recurring_run_pb2.ListRecurringRunsResponse(
            recurringRuns=[recurring_message(one, specs.get(one.spec_digest)) for one in page.items],
            total_size=page.total_size,
            next_page_token=page.next_page_token,
        )

    def EnableRecurringRun(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._recurring.enable(self._visible("enable", request.recurring_run_id))
        return empty_pb2.Empty()

    def DisableRecurringRun(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._recurring.disable(self._visible("disable", request.recurring_run_id))
        return empty_pb2.Empty()

    def DeleteRecurringRun(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._store.delete(self._visible("delete", request.recurring_run_id).recurring_run_id)
        return empty_pb2.Empty()

    def _visible(self, verb: str, recurring_run_id: str) -> RecurringRun:
        if not recurring_run_id:
            raise InvalidArgument("is required", field="recurring_run_id")
        found = self._store.get(recurring_run_id)
        require_visible(verb, "jobs", found.namespace, "recurring run", recurring_run_id)
        return found

    def _message(self, recurring: RecurringRun) -> recurring_run_pb2.RecurringRun:
        spec = struct(self._store.spec(recurring.spec_digest)) if recurring.spec_digest else None
        return recurring_message(recurring, spec)


def _trigger(asked: Any) -> Trigger:
    kind = asked.WhichOneof("trigger")
    field = "recurring_run.trigger"
    if kind is None:
        raise InvalidArgument("cron_schedule or periodic_schedule is required", field=field)
    schedule = getattr(asked, kind)
    for name in ("start_time", "end_time"):
        if schedule.HasField(name) and not 0 < getattr(schedule, name).seconds < 253_402_300_800:
            raise InvalidArgument("must be a time after 1970 and before the year 10000", field=f"{field}.{kind}.{name}")
    if kind == "cron_schedule" and not schedule.cron.strip():
        raise InvalidArgument("is required", field=f"{field}.{kind}.cron")
    return Trigger(
        cron=schedule.cron.strip() if kind == "cron_schedule" else "",
        interval=schedule.interval_second if kind == "periodic_schedule" else 0,
        start=schedule.start_time.seconds,
        end=schedule.end_time.seconds,
    )
