"""What a task was called with, so that it can be called again."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_pipeline.engine.executor_io import executor_input
from mlmesh_pipeline.ir.cluster_names import sources
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.ir.lightweight import LightweightComponent
from mlmesh_pipeline.ir.placeholders import UnknownPlaceholder, resolve
from mlmesh_pipeline.ir.places import Place
from mlmesh_pipeline.ir.runnable import code_of
from mlmesh_pipeline.ir.values import whole
from mlmesh_pipeline.resources import Run, Task, TaskKind


@dataclass(frozen=True, slots=True)
class TaskCall:
    """A call.

    Attributes:
        task: The task.
        code: The function that it runs.
        environment: Variables that the pipeline gives it.
        secret_variables: Names of those that come from secrets and config maps.
        executor_input: ExecutorInput, JSON-ready; its outputs have neither files nor URIs.
    """

    task: Task
    code: LightweightComponent
    environment: dict[str, str]
    secret_variables: list[str]
    executor_input: dict[str, Any]


def describe(run: Run, task: Task, document: PipelineDocument, place: Place) -> TaskCall:
    """Gives the call of a task.

    Raises:
        FailedPrecondition: It runs no Python function, or has not begun, so that its inputs are not known.
    """
    if task.kind != TaskKind.CONTAINER or place.container is None:
        raise FailedPrecondition(f"task {task.path!r} is of kind {task.kind}: it runs no function itself")
    code = code_of(place.container)
    if not isinstance(code, LightweightComponent):
        raise FailedPrecondition(f"task {task.path!r} runs a command, not a Python function")
    if not task.started_at:
        why = f": {task.problem.message}" if task.problem else ""
        raise FailedPrecondition(f"task {task.path!r} has not begun ({task.state}), so it has no inputs yet{why}")
    given = executor_input(place.component, task.inputs, Path("/"), "")
    given["outputs"] = {
        "parameters": {name: {} for name in given["outputs"]["parameters"]},
        "artifacts": {
            name: {"artifacts": [{"name": name, "type": item["artifacts"][0]["type"]}]}
            for name, item in given["outputs"]["artifacts"].items()
        },
    }
    context = {
        "pipeline_job_name": run.display_name,
        "pipeline_job_uuid": run.run_id,
        "pipeline_job_resource_name": run.run_id,
        "pipeline_task_name": task.name,
        "pipeline_task_uuid": task.task_id,
    }
    environment = {}
    for variable in place.container.env:
        value: Any = variable.value
        with contextlib.suppress(UnknownPlaceholder):  # one of the service's own folders: it stays as it is written
            value = resolve(variable.value, task.inputs.parameters, context)
        environment[variable.name] = value if isinstance(value, str) else json.dumps(whole(value))
    config = document.platform_config(place.component.executor_label)
    return TaskCall(task, code, environment, sorted(source.variable for source in sources(config)), given)
