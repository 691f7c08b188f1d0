"""Where the inputs of a task come from: constants, the inputs of its DAG, the outputs of tasks beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmesh_pipeline.ir.check import selector_keys, split_subvariable
from mlmesh_pipeline.ir.cluster_names import Source
from mlmesh_pipeline.ir.placeholders import UnknownPlaceholder, resolve_all
from mlmesh_pipeline.ir.values import WrongType, coerce, parameter_type, to_python, whole
from mlmesh_pipeline.resources import Problem, RuntimeState, Values

_INVALID = 3  # google.rpc.Code.INVALID_ARGUMENT


class NoValue(ValueError):
    """An input has no value, or one of the wrong type; the message names it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended, for the tasks that wait for it."""

    state: RuntimeState
    outputs: Values = field(default_factory=Values)
    problem: Problem | None = None
    has_run: bool = True

    @property
    def succeeded(self) -> bool:
        """Whether its outputs can be used: it succeeded, or was answered from the cache."""
        return self.state == RuntimeState.SUCCEEDED or (self.state == RuntimeState.SKIPPED and self.has_run)


def outcome_at_end(state: RuntimeState, outputs: Values, problem: Problem | None, cached_from: str) -> Outcome:
    """Gives the outcome of a task of how its record says that it ended.

    Args:
        state: A final one.
        outputs: What it gave.
        problem: What went wrong, or why it was not run: that is no failure of it.
        cached_from: Id of the task whose outputs these are; empty: its own.
    """
    has_run = state != RuntimeState.SKIPPED or bool(cached_from)
    return Outcome(state, outputs, problem if has_run else None, has_run=has_run)


NOT_RUN = Outcome(RuntimeState.SKIPPED, has_run=False)


def resolve_inputs(
    task: Any,
    component: Any,
    around: Values,
    upstream: Mapping[str, Outcome],
    *,
    context: Mapping[str, str],
    run_parameters: Mapping[str, Any],
) -> Values:
    """Gives the inputs of a task.

    Args:
        task: PipelineTaskSpec.
        component: Its ComponentSpec.
        around: Inputs of the DAG that the task is in.
        upstream: Outcomes of the tasks that it waits for.
        context: Values of placeholders such as `pipeline_job_name`.
        run_parameters: Parameters of the run, for specifications of old SDKs.

    Raises:
        NoValue: One that is required has none, or one is of the wrong type.
    """
    parameters: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    for name, given in task.inputs.parameters.items():
        value = _parameter(given, around, upstream, context, run_parameters)
        if given.WhichOneof("kind") == "runtime_value" and isinstance(value, str | list | dict):
            constants[name] = value
        if value is not None:
            parameters[name] = _select(given, value, name)
    sources = dict(parameters)
    for name, constant in constants.items():
        try:
            parameters[name] = resolve_all(constant, sources, context)
        except UnknownPlaceholder as error:
            raise NoValue(f"input {name!r}: {error}") from error
    item = getattr(task, task.WhichOneof("iterator")).item_input if task.WhichOneof("iterator") else None
    typed = _typed(parameters, component, item)
    artifacts = {}
    for name, source in task.inputs.artifacts.items():
        if source.WhichOneof("kind") == "component_input_artifact":
            items = around.artifacts.get(source.component_input_artifact)
        else:
            outcome = upstream[source.task_output_artifact.producer_task]
            items = outcome.outputs.artifacts.get(source.task_output_artifact.output_artifact_key)
        if items is not None:
            artifacts[name] = items
    for name, spec in component.input_definitions.artifacts.items():
        if name not in artifacts and not spec.is_optional and name != item:
            raise NoValue(f"input artifact {name!r} has no value: the task that makes it did not run")
    return Values(typed, artifacts)


def _parameter(
    given: Any,
    around: Values,
    upstream: Mapping[str, Outcome],
    context: Mapping[str, str],
    run_parameters: Mapping[str, Any],
) -> Any:
    kind = given.WhichOneof("kind")
    if kind == "component_input_parameter":
        name, key = split_subvariable(given.component_input_parameter, around.parameters)
        value = around.parameters.get(name)
        return value.get(key) if key and isinstance(value, dict) else value
    if kind == "task_output_parameter":
        outcome = upstream[given.task_output_parameter.producer_task]
        return outcome.outputs.parameters.get(given.task_output_parameter.output_parameter_key)
    if kind == "task_final_status":
        return _final_status(given.task_final_status.producer_task, upstream, context)
    source = given.runtime_value
    which = source.WhichOneof("value")
    if which == "constant":
        return whole(to_python(source.constant))
    if which == "runtime_parameter":
        return run_parameters.get(source.runtime_parameter)
    constant = source.constant_value
    return getattr(constant, constant.WhichOneof("value")) if constant.WhichOneof("value") else None


def _final_status(producer: str, upstream: Mapping[str, Outcome], context: Mapping[str, str]) -> dict[str, Any]:
    outcome = upstream[producer]
    problem = outcome.problem
    return {
        "state": "COMPLETE" if outcome.succeeded or not outcome.has_run else outcome.state.value,
        "pipelineJobResourceName": context["pipeline_job_resource_name"],
        "pipelineTaskName": producer,
        "error": {"code": problem.code, "message": problem.message} if problem else {},
    }


def _select(given: Any, value: Any, name: str) -> Any:
    expression = given.parameter_expression_selector
    if not expression or _is_selected(given.component_input_parameter, expression):
        return value
    try:
        found = json.loads(value) if isinstance(value, str) else value
        for key in selector_keys(expression):
            found = found[key]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NoValue(f"input {name!r}: {expression} finds nothing in the value") from error
    return found


def _is_selected(source: str, expression: str) -> bool:
    """Tells whether an input is the very part that is asked of it: the compiler asks again in each inner DAG."""
    _, mark, key = source.rpartition("-subvar-")
    try:
        return bool(mark) and selector_keys(expression) == [key]
    except ValueError:
        return False


def _typed(parameters: dict[str, Any], component: Any, item: str | None) -> dict[str, Any]:
    definitions = component.input_definitions.parameters
    found = dict(parameters)
    for name, definition in definitions.items():
        if name in found:
            try:
                found[name] = coerce(found[name], parameter_type(definition))
            except WrongType as error:
                raise NoValue(f"input parameter {name!r} {error}") from error
        elif definition.HasField("default_value"):
            found[name] = coerce(to_python(definition.default_value), parameter_type(definition))
        elif not definition.is_optional and name != item:
            raise NoValue(f"input parameter {name!r} has no value: the task that makes it did not run or gave none")
    return found


def name_beside(around: Mapping[str, Any], upstream: Mapping[str, Outcome], source: Source) -> Any:
    """Gives the name of a secret or config map that an input of the DAG or a task beside says; None: no value."""
    if source.parameter:
        return around.get(source.parameter)
    producer, key = source.output
    return upstream[producer].outputs.parameters.get(key) if producer in upstream else None


def dag_outputs(component: Any, outcomes: Mapping[str, Outcome]) -> Values:
    """Gives the outputs of a DAG, from those of its tasks; one whose task did not run is left out."""
    parameters: dict[str, Any] = {}
    for name, output in component.dag.outputs.parameters.items():
        one = output.WhichOneof("kind") == "value_from_parameter"
        selectors = [output.value_from_parameter] if one else output.value_from_oneof.parameter_selectors
        for selector in selectors:
            given = outcomes[selector.producer_subtask].outputs.parameters
            if selector.output_parameter_key in given:
                parameters[name] = given[selector.output_parameter_key]
                break
    artifacts = {}
    for name, output in component.dag.outputs.artifacts.items():
        for selector in output.artifact_selectors:
            found = outcomes[selector.producer_subtask].outputs.artifacts.get(selector.output_artifact_key)
            if found is not None:
                artifacts[name] = found
                break
    return Values(parameters, artifacts)


def collect(component: Any, outcomes: list[Outcome]) -> Values:
    """Gives the outputs of a loop: lists, in the order of the iterations, of what they gave."""
    definitions = component.output_definitions
    return Values(
        {
            name: [outcome.outputs.parameters[name] for outcome in outcomes if name in outcome.outputs.parameters]
            for name in definitions.parameters
        },
        {
            name: [item for outcome in outcomes for item in outcome.outputs.artifacts.get(name, [])]
            for name in definitions.artifacts
        },
    )


def problem_of_input(error: NoValue) -> Problem:
    """Gives the problem of a task whose inputs cannot be had."""
    return Problem(_INVALID, str(error))
