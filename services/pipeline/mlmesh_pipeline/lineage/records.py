"""Runs, tasks and artifacts as ML Metadata's records, named as KFP's driver and launcher name them."""

import math
from typing import Any

from google.protobuf import json_format
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd

from mlmesh_pipeline.resources import Artifact, Run, RuntimeState, Task, TaskKind, Values

PIPELINE, PIPELINE_RUN = "system.Pipeline", "system.PipelineRun"
CONTAINER_EXECUTION, DAG_EXECUTION = "system.ContainerExecution", "system.DAGExecution"
IMPORTER_EXECUTION = "system.ImporterExecution"

_STATES = {
    RuntimeState.PENDING: mlmd.Execution.NEW,
    RuntimeState.RUNNING: mlmd.Execution.RUNNING,
    RuntimeState.CANCELING: mlmd.Execution.RUNNING,
    RuntimeState.SUCCEEDED: mlmd.Execution.COMPLETE,
    RuntimeState.SKIPPED: mlmd.Execution.CACHED,
    RuntimeState.FAILED: mlmd.Execution.FAILED,
    RuntimeState.CANCELED: mlmd.Execution.CANCELED,
}


def execution_type(kind: TaskKind) -> str:
    """Names the type of a task's execution."""
    if kind == TaskKind.CONTAINER:
        return CONTAINER_EXECUTION
    return IMPORTER_EXECUTION if kind == TaskKind.IMPORTER else DAG_EXECUTION


def run_context(run: Run, type_id: int, pipeline_root: str) -> mlmd.Context:
    """Gives the context of a run; its name is the run's id."""
    context = mlmd.Context(type_id=type_id, name=run.run_id)
    _put(context.custom_properties, display_name=run.display_name, namespace=run.namespace)
    _put(context.custom_properties, resource_name=run.run_id, pipeline_root=pipeline_root, creator=run.creator)
    return context


def run_execution(run: Run, type_id: int) -> mlmd.Execution:
    """Gives the execution of a run as a whole: the root DAG."""
    execution = mlmd.Execution(type_id=type_id, name=f"run/{run.run_id}", last_known_state=_STATES[run.state])
    _put(execution.custom_properties, display_name=run.display_name, task_name="", namespace=run.namespace)
    _put_struct(execution.custom_properties, "inputs", run.parameters)
    if run.problem:
        _put(execution.custom_properties, error=run.problem.message)
    return execution


def task_execution(run: Run, task: Task, type_id: int, parent_execution: int, cached_execution: int) -> mlmd.Execution:
    """Gives the execution of a task."""
    execution = mlmd.Execution(
        type_id=type_id, name=f"run/{run.run_id}/{task.task_id}", last_known_state=_STATES[task.state]
    )
    properties = execution.custom_properties
    _put(properties, display_name=task.display_name, task_name=task.name, namespace=run.namespace, run_id=run.run_id)
    _put(properties, pod_name=task.task_id, parent_dag_id=parent_execution)
    if task.fingerprint:
        _put(properties, cache_fingerprint=task.fingerprint)
    if cached_execution:
        _put(properties, cached_execution_id=str(cached_execution))
    if task.iteration >= 0:
        _put(properties, iteration_index=task.iteration)
    _put_struct(properties, "inputs", task.inputs.parameters)
    _put_struct(properties, "outputs", task.outputs.parameters)
    if task.problem and task.state != RuntimeState.SUCCEEDED:
        _put(properties, error=task.problem.message)
    return execution


def artifact_record(artifact: Artifact, type_id: int, namespace: str) -> mlmd.Artifact:
    """Gives an artifact; its external id is ours, so that it is written once however often it is sent."""
    record = mlmd.Artifact(
        type_id=type_id, uri=artifact.uri, external_id=artifact.artifact_id, state=mlmd.Artifact.LIVE
    )
    properties = record.custom_properties
    for name, value in artifact.metadata.items():
        _put_any(properties, name, value)
    _put(properties, display_name=artifact.name, namespace=namespace)
    if artifact.digest:
        _put(properties, content_digest=f"sha256:{artifact.digest}")
    return record


def artifact_events(task: Task) -> list[tuple[Artifact, mlmd.Event]]:
    """Gives what a task took and gave. DAGs give nothing themselves: their tasks do."""
    found = _events(task.inputs, mlmd.Event.INPUT)
    if task.kind in {TaskKind.CONTAINER, TaskKind.IMPORTER}:
        found += _events(task.outputs, mlmd.Event.OUTPUT)
    return found


def _events(values: Values, kind: mlmd.Event.Type.ValueType) -> list[tuple[Artifact, mlmd.Event]]:
    found = []
    for name, items in values.artifacts.items():
        for index, artifact in enumerate(items):
            event = mlmd.Event(type=kind)
            event.path.steps.add(key=name)
            event.path.steps.add(index=index)
            found.append((artifact, event))
    return found


def _put(properties: Any, **values: str | int) -> None:
    for name, value in values.items():
        if isinstance(value, int):
            properties[name].int_value = value
        else:
            properties[name].string_value = value


def _put_struct(properties: Any, name: str, content: dict[str, Any]) -> None:
    json_format.ParseDict(content, properties[name].struct_value)


def _put_any(properties: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        properties[name].bool_value = value
    elif isinstance(value, int) and abs(value) < 2**63:
        properties[name].int_value = value
    elif isinstance(value, float) and not math.isfinite(value):
        properties[name].string_value = str(value)  # databases keep no NaN, and JSON has neither
    elif isinstance(value, int | float):
        properties[name].double_value = float(value)
    elif isinstance(value, str):
        properties[name].string_value = value
    elif isinstance(value, dict):
        _put_struct(properties, name, value)
    elif isinstance(value, list):
        _put_struct(properties, name, {"list": value})
