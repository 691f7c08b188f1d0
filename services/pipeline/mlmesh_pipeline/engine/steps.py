"""What a step of a pipeline means, on any backend: conditions, loops, importers, the words for what was not run."""

import contextlib
import datetime
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlmesh_pipeline.engine.inputs import NoValue, Outcome, collect, dag_outputs
from mlmesh_pipeline.ir.condition import Condition, ConditionError
from mlmesh_pipeline.ir.placeholders import UnknownPlaceholder, resolve, resolve_all
from mlmesh_pipeline.ir.values import to_python, whole
from mlmesh_pipeline.resources import Artifact, Problem, Run, RuntimeState, Values

_ABORTED, _UNKNOWN = 10, 2  # google.rpc.Code


def join(path: str, name: str) -> str:
    """Gives the path of a task in a DAG."""
    return f"{path}/{name}" if path else name


def context_of(run: Run, task_name: str, task_id: str, root_uri: str, workspace: str = "") -> dict[str, str]:
    """Gives the values of `placeholders.CONTEXT_NAMES` for a task.

    Args:
        run: Its run.
        task_name, task_id: Of the task.
        root_uri: Under which the run's artifacts go.
        workspace: Folder that the run's tasks share; empty: there is none.
    """
    created = datetime.datetime.fromtimestamp(run.created_at / 1e6, datetime.UTC).isoformat()
    return {
        "pipeline_job_name": run.display_name,
        "pipeline_job_uuid": run.run_id,
        "pipeline_job_resource_name": f"{run.pipeline_name}-{run.run_id}",
        "pipeline_job_create_time_utc": created,
        "pipeline_job_schedule_time_utc": created,
        "pipeline_task_name": task_name,
        "pipeline_task_uuid": task_id,
        "pipeline_root": root_uri,
        **({"workspace_path": workspace} if workspace else {}),
    }


def condition_holds(spec: Any, inputs: Values) -> bool:
    """Tells whether the condition of a task holds.

    Raises:
        NoValue: It cannot be told.
    """
    if not spec.trigger_policy.condition:
        return True
    try:
        return Condition(spec.trigger_policy.condition).holds(inputs.parameters)
    except ConditionError as error:
        raise NoValue(f"the condition {spec.trigger_policy.condition}: {error}") from error


def loop_items(spec: Any, inputs: Values, context: Mapping[str, str], limit: int) -> list[Any]:
    """Gives what a loop goes over.

    Args:
        spec: PipelineTaskSpec with an iterator.
        inputs: Of the task.
        context: Values of placeholders.
        limit: Most items.

    Raises:
        NoValue: It is no list, or too long.
    """
    iterator = getattr(spec, spec.WhichOneof("iterator"))
    items: Any
    if spec.WhichOneof("iterator") == "artifact_iterator":
        items = inputs.artifacts.get(iterator.items.input_artifact, [])
    elif iterator.items.WhichOneof("kind") == "raw":
        try:
            text = resolve(iterator.items.raw, inputs.parameters, context)
            items = json.loads(text) if isinstance(text, str) else text
        except (UnknownPlaceholder, ValueError) as error:
            raise NoValue(f"the items of the loop: {error}") from error
    else:
        items = inputs.parameters.get(iterator.items.input_parameter)
        if isinstance(items, str):
            with contextlib.suppress(ValueError):
                items = json.loads(items)
    if not isinstance(items, list):
        raise NoValue("the items of the loop are not a list")
    if len(items) > limit:
        raise NoValue(f"the loop has {len(items)} items, at most {limit} are allowed")
    return items


def with_item(inputs: Values, name: str, item: Any) -> Values:
    """Gives the inputs of an iteration: those of the loop, and the item."""
    if isinstance(item, Artifact):
        return replace(inputs, artifacts={**inputs.artifacts, name: [item]})
    return replace(inputs, parameters={**inputs.parameters, name: item})


def importer_uri(importer: Any, inputs: Values) -> str:
    """Gives the URI that an importer imports; "" if it has none."""
    source = importer.artifact_uri
    which = source.WhichOneof("value")
    uri = inputs.parameters.get("uri")
    if uri is None and which == "constant":
        uri = to_python(source.constant)
    elif uri is None and which == "runtime_parameter":
        uri = inputs.parameters.get(source.runtime_parameter)
    return uri if isinstance(uri, str) else ""


def importer_metadata(importer: Any, inputs: Values, context: Mapping[str, str]) -> dict[str, Any]:
    """Gives the metadata of an importer's artifact, with values in the place of placeholders.

    Raises:
        NoValue: A placeholder has none.
    """
    constant = {name: whole(to_python(value)) for name, value in importer.metadata.fields.items()}
    try:
        found: dict[str, Any] = resolve_all(constant, inputs.parameters, context)
    except UnknownPlaceholder as error:
        raise NoValue(f"metadata: {error}") from error
    return found


def imported(importer: Any, component: Any, uri: str, metadata: dict[str, Any], digest: str, etag: str) -> Values:
    """Gives the outputs of an importer: one artifact.

    Args:
        importer: ImporterSpec.
        component: Its ComponentSpec.
        uri: What it imports.
        metadata: See `importer_metadata`.
        digest, etag: Of what is there; empty where they are not known.
    """
    name, spec = next(iter(component.output_definitions.artifacts.items()))
    artifact = Artifact(
        artifact_id=str(uuid.uuid4()),
        name=name,
        kind=importer.type_schema.schema_title or spec.artifact_type.schema_title or "system.Artifact",
        version=importer.type_schema.schema_version or spec.artifact_type.schema_version or "0.0.1",
        uri=uri,
        metadata=metadata,
        digest=digest,
        etag=etag,
    )
    return Values({}, {name: [artifact]})


def with_task_inputs(given: dict[str, Any], inputs: Values) -> dict[str, Any]:
    """Adds what the compiler makes of f-strings: inputs of the task that its component does not declare."""
    values = {**inputs.parameters, **given["inputs"]["parameterValues"]}
    return {**given, "inputs": {**given["inputs"], "parameterValues": values}}


def text_of(value: Any) -> str:
    """Gives a value as the text of an environment variable or of an argument."""
    return value if isinstance(value, str) else json.dumps(whole(value))


def blocked_words(blocked: list[str], upstream: Mapping[str, Outcome]) -> str:
    """Says which tasks keep another from running."""
    return ", ".join(f"{name} {'failed' if upstream[name].problem else 'was not run'}" for name in blocked)


def problem_of_failed(failed: list[str], outcomes: Mapping[str, Outcome]) -> Problem:
    """Says which tasks failed and why, innermost words last."""
    words = []
    for name in failed[:5]:
        problem = outcomes[name].problem
        words.append(f"task {name!r} failed: {problem.message if problem else 'unknown'}")
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    first = outcomes[failed[0]].problem
    return Problem(first.code if first else _UNKNOWN, "; ".join(words) + more)


def outcome_of_dag(component: Any, outcomes: Mapping[str, Outcome]) -> Outcome:
    """Gives how a DAG ended, of how its tasks did, in their order."""
    failed = [name for name, outcome in outcomes.items() if outcome.state == RuntimeState.FAILED]
    outputs = dag_outputs(component, outcomes)
    if failed:
        return Outcome(RuntimeState.FAILED, outputs, problem_of_failed(failed, outcomes))
    return Outcome(RuntimeState.SUCCEEDED, outputs)


def outcome_of_loop(component: Any, outcomes: list[Outcome]) -> Outcome:
    """Gives how a loop ended, of how its iterations did."""
    failed = [number for number, outcome in enumerate(outcomes) if outcome.state == RuntimeState.FAILED]
    outputs = collect(component, outcomes)
    if failed:
        first = outcomes[failed[0]].problem
        words = f"iteration {failed[0]} failed: {first.message if first else ''}"
        return Outcome(RuntimeState.FAILED, outputs, Problem(_ABORTED, words))
    return Outcome(RuntimeState.SUCCEEDED, outputs)
