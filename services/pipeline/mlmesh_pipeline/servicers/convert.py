"""Messages of `kubeflow.pipelines.backend.api.v2beta1` from and to the domain's."""

import json
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format, struct_pb2, timestamp_pb2
from google.rpc import status_pb2
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    experiment_pb2,
    filter_pb2,
    pipeline_pb2,
    recurring_run_pb2,
    run_pb2,
)

from mlmesh_pipeline.listing import ListQuery, Operation, Predicate, page_size_of
from mlmesh_pipeline.pipelines import Naming
from mlmesh_pipeline.resources import (
    Attempt,
    AttemptState,
    Event,
    Experiment,
    Pipeline,
    PipelineVersion,
    Problem,
    RecurringRun,
    Run,
    Task,
    Values,
)

_OPERATIONS = {filter_pb2.Predicate.Operation.Value(one.value): one for one in Operation}


def timestamp(micros: int) -> timestamp_pb2.Timestamp | None:
    """Gives a time as a message; None where there is none yet."""
    if not micros:
        return None
    return timestamp_pb2.Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def struct(content: dict[str, Any]) -> struct_pb2.Struct:
    """Gives JSON as a Struct."""
    found = struct_pb2.Struct()
    json_format.ParseDict(content, found)
    return found


def list_query(request: Any) -> ListQuery:
    """Reads the filter, order and page of a list request.

    Raises:
        InvalidArgument: The filter cannot be read, or the page size is negative.
    """
    return ListQuery(
        predicates=tuple(_predicates(request.filter)),
        sort_by=request.sort_by,
        page_size=page_size_of(request.page_size),
        page_token=request.page_token,
    )


def _predicates(text: str) -> list[Predicate]:
    if not text:
        return []
    if len(text) > 100_000:
        raise InvalidArgument("must be at most 100000 characters", field="filter")
    decoded = text if text.lstrip().startswith("{") else unquote(text)
    try:
        message = json_format.Parse(decoded, filter_pb2.Filter(), max_recursion_depth=10)
    except (json_format.ParseError, RecursionError, ValueError) as error:
        raise InvalidArgument(
            f"must be a Filter as JSON: {' '.join(str(error).split())[:300]}", field="filter"
        ) from error
    return [_predicate(predicate) for predicate in message.predicates]


def _predicate(predicate: Any) -> Predicate:
    if predicate.operation not in _OPERATIONS:
        known = ", ".join(Operation)
        raise InvalidArgument(f"{predicate.key[:100]!r} needs an operation: one of {known}", field="filter")
    kind = predicate.WhichOneof("value")
    if kind is None:
        raise InvalidArgument(f"the value for {predicate.key[:100]!r} is missing", field="filter")
    value = getattr(predicate, kind)
    if kind == "timestamp_value":
        value = value.ToMicroseconds()
    elif kind.endswith("values"):
        value = list(value.values)
    operation = _OPERATIONS[predicate.operation]
    return Predicate(predicate.key, operation, value, whole_seconds=kind.startswith(("int", "long")))


def experiment_message(experiment: Experiment) -> experiment_pb2.Experiment:
    """Gives an experiment as a message."""
    return experiment_pb2.Experiment(
        experiment_id=experiment.experiment_id,
        display_name=experiment.display_name,
        description=experiment.description,
        created_at=timestamp(experiment.created_at),
        namespace=experiment.namespace,
        storage_state=experiment_pb2.Experiment.StorageState.Value(experiment.storage_state.value),
        last_run_created_at=timestamp(experiment.last_run_created_at),
    )


def naming_of(message: Any) -> Naming:
    """Reads how a client names a pipeline or a version."""
    return Naming(message.name, message.display_name, message.description, dict(message.tags))


def pipeline_message(pipeline: Pipeline) -> pipeline_pb2.Pipeline:
    """Gives a pipeline as a message."""
    return pipeline_pb2.Pipeline(
        pipeline_id=pipeline.pipeline_id,
        display_name=pipeline.display_name,
        name=pipeline.name,
        description=pipeline.description,
        created_at=timestamp(pipeline.created_at),
        namespace=pipeline.namespace,
        tags=pipeline.tags,
    )


def version_message(version: PipelineVersion) -> pipeline_pb2.PipelineVersion:
    """Gives a version as a message."""
    url = pipeline_pb2.Url(pipeline_url=version.package_url) if version.package_url else None
    return pipeline_pb2.PipelineVersion(
        pipeline_id=version.pipeline_id,
        pipeline_version_id=version.version_id,
        display_name=version.display_name,
        name=version.name,
        description=version.description,
        created_at=timestamp(version.created_at),
        package_url=url,
        code_source_url=version.code_source_url,
        pipeline_spec=struct(version.spec),
        tags=version.tags,
    )


def problem_message(problem: Problem | None) -> status_pb2.Status | None:
    """Gives a problem as `google.rpc.Status`."""
    return status_pb2.Status(code=problem.code, message=problem.message) if problem else None


def run_message(run: Run, spec: struct_pb2.Struct | None, history: list[Event]) -> run_pb2.Run:
    """Gives a run as a message, without its tasks."""
    message = run_pb2.Run(
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        display_name=run.display_name,
        storage_state=run_pb2.Run.StorageState.Value(run.storage_state.value),
        description=run.description,
        service_account=run.service_account,
        created_at=timestamp(run.created_at),
        scheduled_at=timestamp(run.scheduled_at),
        finished_at=timestamp(run.finished_at),
        state=run_pb2.RuntimeState.Value(run.state.value),
        error=problem_message(run.problem),
        state_history=[_status(event) for event in history],
        recurring_run_id=run.recurring_run_id,
    )
    _fill_source(message, run, spec)
    return message


def recurring_message(recurring: RecurringRun, spec: struct_pb2.Struct | None) -> recurring_run_pb2.RecurringRun:
    """Gives a recurring run as a message; `spec` is the pipeline that came with the request, if one did."""
    modes, states = recurring_run_pb2.RecurringRun.Mode, recurring_run_pb2.RecurringRun.Status
    message = recurring_run_pb2.RecurringRun(
        recurring_run_id=recurring.recurring_run_id,
        display_name=recurring.display_name,
        description=recurring.description,
        service_account=recurring.service_account,
        max_concurrency=recurring.max_concurrency,
        mode=modes.ENABLE if recurring.enabled else modes.DISABLE,
        status=states.ENABLED if recurring.enabled else states.DISABLED,
        created_at=timestamp(recurring.created_at),
        updated_at=timestamp(recurring.updated_at),
        error=problem_message(recurring.problem),
        no_catchup=recurring.no_catchup,
        namespace=recurring.namespace,
        experiment_id=recurring.experiment_id,
    )
    trigger = recurring.trigger
    if trigger.cron:
        schedule: Any = message.trigger.cron_schedule
        schedule.cron = trigger.cron
    else:
        schedule = message.trigger.periodic_schedule
        schedule.interval_second = trigger.interval
    for name, seconds in (("start_time", trigger.start), ("end_time", trigger.end)):
        if seconds:
            getattr(schedule, name).FromSeconds(seconds)
    _fill_source(message, recurring, spec)
    return message


def _fill_source(message: Any, source: Run | RecurringRun, spec: struct_pb2.Struct | None) -> None:
    message.runtime_config.pipeline_root = source.pipeline_root
    for name, value in source.parameters.items():
        json_format.ParseDict(value, message.runtime_config.parameters[name])
    for name, content in source.plugins_input.items():
        message.plugins_input[name].CopyFrom(struct(content))
    if source.pipeline_id:
        message.pipeline_version_reference.pipeline_id = source.pipeline_id
        message.pipeline_version_reference.pipeline_version_id = source.version_id
    elif spec is not None:
        message.pipeline_spec.CopyFrom(spec)


def run_details(
    run: Run,
    tasks: list[Task],
    attempts: list[Attempt],
    history: dict[str, list[Event]],
    metadata_ids: dict[str, int],
) -> run_pb2.RunDetails:
    """Gives the tasks of a run as a message.

    A task that was answered from the cache is SKIPPED, and `executor_detail.pre_caching_check_job` is
    `cache/<id of the task whose outputs it has>`.
    """
    made: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        made.setdefault(attempt.task_id, []).append(attempt)
    by_place = {(task.parent_id, task.name): task for task in tasks}
    children: dict[str, list[str]] = {}
    for task in tasks:
        if task.parent_id:
            children.setdefault(task.parent_id, []).append(task.task_id)
        for name in task.upstream:
            before = by_place.get((task.parent_id, name))
            if before is not None:
                children.setdefault(before.task_id, []).append(task.task_id)
    details = run_pb2.RunDetails(
        pipeline_context_id=run.pipeline_context_id, pipeline_run_context_id=run.run_context_id
    )
    for task in tasks:
        details.task_details.append(
            run_pb2.PipelineTaskDetail(
                run_id=run.run_id,
                task_id=task.task_id,
                display_name=task.display_name,
                create_time=timestamp(task.created_at),
                start_time=timestamp(task.started_at),
                end_time=timestamp(task.finished_at),
                executor_detail=_executor_detail(task, made.get(task.task_id, [])),
                state=run_pb2.RuntimeState.Value(task.state.value),
                execution_id=task.execution_id,
                error=problem_message(task.problem),
                inputs=_artifact_lists(task.inputs, metadata_ids),
                outputs=_artifact_lists(task.outputs, metadata_ids),
                parent_task_id=task.parent_id,
                state_history=[_status(event) for event in history.get(task.task_id, [])],
                pod_name=_pod_name(made.get(task.task_id, [])),
                child_tasks=[
                    run_pb2.PipelineTaskDetail.ChildTask(task_id=child) for child in children.get(task.task_id, [])
                ],
            )
        )
    return details


def content_of(message: Any, field: str) -> Any:
    """Gives a Struct or Value as JSON.

    Args:
        message: It.
        field: Where it is in the request.

    Raises:
        InvalidArgument: JSON has no such number (infinity, NaN).
    """
    try:
        return json_format.MessageToDict(message)
    except ValueError as error:
        raise InvalidArgument("must not have infinite numbers or NaN in it", field=field) from error


def parameters_of(config: Any) -> dict[str, Any]:
    """Reads the parameters of a RuntimeConfig.

    Raises:
        InvalidArgument: One has a number that JSON does not have.
    """
    return {
        name: content_of(value, f"runtime_config.parameters[{name!r}]")
        if value.WhichOneof("kind") not in {None, "null_value"}
        else None
        for name, value in config.parameters.items()
    }


def plugins_input_of(asked: Any) -> dict[str, Any]:
    """Reads what a run or recurring run gives to plugins.

    Raises:
        InvalidArgument: There is a number in it that JSON does not have.
    """
    return {name: content_of(value, f"plugins_input[{name!r}]") for name, value in asked.plugins_input.items()}


def tags_of(text: str) -> dict[str, str]:
    """Reads tags that came as JSON in a query.

    Raises:
        InvalidArgument: They are not an object of strings.
    """
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("must be a JSON object of strings", field="tags") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidArgument("must be a JSON object of strings", field="tags")
    return found


def _status(event: Event) -> run_pb2.RuntimeStatus:
    return run_pb2.RuntimeStatus(
        update_time=timestamp(event.at),
        state=run_pb2.RuntimeState.Value(event.state.value),
        error=problem_message(event.problem),
    )


def _job(attempt: Attempt) -> str:
    return f"{attempt.task_id}/{attempt.number}"


def _pod_name(attempts: list[Attempt]) -> str:
    if attempts and attempts[-1].pod:
        return attempts[-1].pod
    return f"process/{attempts[-1].pid}" if attempts and attempts[-1].pid else ""


def _executor_detail(task: Task, attempts: list[Attempt]) -> run_pb2.PipelineTaskExecutorDetail | None:
    if not attempts and not task.cached_from:
        return None
    failed = {AttemptState.FAILED, AttemptState.INTERRUPTED, AttemptState.CANCELED}
    last_is_good = bool(attempts) and attempts[-1].state not in failed
    return run_pb2.PipelineTaskExecutorDetail(
        main_job=_job(attempts[-1]) if last_is_good else "",
        pre_caching_check_job=f"cache/{task.cached_from}" if task.cached_from else "",
        failed_main_jobs=[_job(attempt) for attempt in attempts if attempt.state in failed],
    )


def _artifact_lists(values: Values, metadata_ids: dict[str, int]) -> dict[str, run_pb2.ArtifactList]:
    return {
        name: run_pb2.ArtifactList(
            artifact_ids=[metadata_ids[item.artifact_id] for item in items if metadata_ids.get(item.artifact_id)]
        )
        for name, items in values.artifacts.items()
    }
