"""Says whether a document holds together: every name that is used exists, nothing goes in circles."""

import json
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_pipeline.ir.condition import Condition, ConditionError
from mlmesh_pipeline.ir.document import FIELD, PipelineDocument
from mlmesh_pipeline.ir.placeholders import names_in, texts_of
from mlmesh_pipeline.ir.values import WrongType, check_exact, parameter_type, to_python

MAX_TASKS = 10_000
MAX_NESTING = 50
MAX_PATH = 2000
_INDEX_CHARACTERS = 8  # "[12345]/"
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.\- ]{0,254}$")
_KEY = re.compile(r"""\[(?:"([^"]*)"|'([^']*)'|(\d{1,9}))\]""")
_SELECTOR = re.compile(r"""parseJson\(string_value\)((?:\[(?:"[^"]*"|'[^']*'|\d{1,9})\])+)""")


def check(document: PipelineDocument) -> None:
    """Checks a document.

    Raises:
        InvalidArgument: Lists what is wrong, each with the path of the field.
    """
    faults = list(_faults(document))
    if faults:
        raise InvalidArgument.of(faults[:20])
    _check_extent(document)


def components_used(document: PipelineDocument) -> set[str]:
    """Gives the components that the root's tasks lead to; the others of a document are never run."""
    found: set[str] = set()
    waiting = [document.spec.root]
    while waiting:
        new = {task.component_ref.name for task in waiting.pop().dag.tasks.values()} - found
        found |= new
        waiting += [document.component(name) for name in new]
    return found


def upstream_of(task: Any) -> set[str]:
    """Gives the tasks of the same DAG that a task waits for."""
    found = set(task.dependent_tasks)
    for parameter in task.inputs.parameters.values():
        kind = parameter.WhichOneof("kind")
        if kind == "task_output_parameter":
            found.add(parameter.task_output_parameter.producer_task)
        elif kind == "task_final_status":
            found.add(parameter.task_final_status.producer_task)
    for artifact in task.inputs.artifacts.values():
        if artifact.WhichOneof("kind") == "task_output_artifact":
            found.add(artifact.task_output_artifact.producer_task)
    return found


def selector_keys(expression: str) -> list[str | int]:
    """Reads `parseJson(string_value)["a"][0]`.

    Raises:
        ValueError: It is of another form.
    """
    found = _SELECTOR.fullmatch(expression.strip())
    if not found:
        raise ValueError(f"{expression!r} is not of the form parseJson(string_value)[...]")
    return [int(number) if number else text or other for text, other, number in _KEY.findall(found[1])]


def split_subvariable(name: str, known: Any) -> tuple[str, str]:
    """Reads the name of an input that is a part of another: the compiler writes `X-subvar-KEY` for `X["KEY"]`.

    Args:
        name: As it is written.
        known: Names of the inputs that there are.

    Returns:
        The input, and the key in it or nothing.
    """
    base, mark, key = name.rpartition("-subvar-")
    if name not in known and mark and base in known:
        return base, key
    return name, ""


Fault = tuple[str, str]


def _faults(document: PipelineDocument) -> Iterator[Fault]:
    spec = document.spec
    if not _NAME.match(spec.pipeline_info.name):
        yield f"{FIELD}.pipelineInfo.name", "must be a name of 1 to 255 letters, digits, spaces and '-', '_', '.'"
    if spec.schema_version and not spec.schema_version.startswith("2."):
        yield f"{FIELD}.schemaVersion", f"must be 2.x, got {spec.schema_version!r}"
    if not spec.HasField("root") or not spec.root.HasField("dag"):
        yield f"{FIELD}.root.dag", "is required"
        return
    yield from _component_faults(document, spec.root, f"{FIELD}.root")
    for name, component in spec.components.items():
        yield from _component_faults(document, component, f"{FIELD}.components[{name!r}]")


def _component_faults(document: PipelineDocument, component: Any, path: str) -> Iterator[Fault]:
    for side in ("input_definitions", "output_definitions"):
        definitions = getattr(component, side)
        for name in [*definitions.parameters, *definitions.artifacts]:
            if not _is_safe(name):
                yield f"{path}.{_camel(side)}", f"{name!r} is not a name"
    for name, parameter in component.input_definitions.parameters.items():
        if parameter.HasField("default_value"):
            try:
                check_exact(to_python(parameter.default_value), parameter_type(parameter))
            except WrongType as error:
                yield f"{path}.inputDefinitions.parameters[{name!r}].defaultValue", str(error)
    kind = component.WhichOneof("implementation")
    if kind is None:
        yield path, "must have a dag or an executorLabel"
    elif kind == "executor_label":
        if component.executor_label not in document.deployment.executors:
            yield f"{path}.executorLabel", f"there is no executor {component.executor_label!r}"
    else:
        yield from _dag_faults(document, component, f"{path}.dag")


def _dag_faults(document: PipelineDocument, component: Any, path: str) -> Iterator[Fault]:
    tasks = component.dag.tasks
    names = set(tasks)
    waits_for = {name: upstream_of(task) for name, task in tasks.items()}
    broken = False
    for name, task in tasks.items():
        here = f"{path}.tasks[{name!r}]"
        if not _is_safe(name):
            yield here, "is not a name"
        if task.component_ref.name not in document.spec.components:
            yield f"{here}.componentRef.name", f"there is no component {task.component_ref.name!r}"
            broken = True
        for upstream in sorted(waits_for[name] - names):
            yield here, f"depends on {upstream!r}, which is not a task beside it"
            broken = True
    if broken:
        return
    try:
        TopologicalSorter(waits_for).prepare()
    except CycleError as error:
        yield f"{path}.tasks", f"go in a circle: {' -> '.join(error.args[1][:20])}"
        return
    for name, task in tasks.items():
        yield from _task_faults(document, component, task, f"{path}.tasks[{name!r}]")
    yield from _output_faults(document, component, path)


def _task_faults(document: PipelineDocument, component: Any, task: Any, path: str) -> Iterator[Fault]:
    for name, given in task.inputs.parameters.items():
        here = f"{path}.inputs.parameters[{name!r}]"
        yield from _parameter_faults(document, component, task, given, here)
        if given.parameter_expression_selector:
            try:
                selector_keys(given.parameter_expression_selector)
            except ValueError as error:
                yield f"{here}.parameterExpressionSelector", str(error)
    yield from _artifact_faults(document, component, task, path)
    iterator = task.WhichOneof("iterator")
    item = ""
    if iterator:
        item = getattr(task, iterator).item_input
        yield from _iterator_faults(task, iterator, path)
    yield from _missing_faults(document, task, item, path)
    if task.trigger_policy.condition:
        yield from _condition_faults(task, path)


def _artifact_faults(document: PipelineDocument, component: Any, task: Any, path: str) -> Iterator[Fault]:
    for name, given in task.inputs.artifacts.items():
        here = f"{path}.inputs.artifacts[{name!r}]"
        kind = given.WhichOneof("kind")
        if kind is None:
            yield here, "has no source"
        elif kind == "component_input_artifact":
            if given.component_input_artifact not in component.input_definitions.artifacts:
                yield here, f"the component has no input artifact {given.component_input_artifact!r}"
        else:
            producer = document.component(
                component.dag.tasks[given.task_output_artifact.producer_task].component_ref.name
            )
            if given.task_output_artifact.output_artifact_key not in producer.output_definitions.artifacts:
                yield here, f"{given.task_output_artifact.producer_task!r} has no such output artifact"


def _missing_faults(document: PipelineDocument, task: Any, item: str, path: str) -> Iterator[Fault]:
    target = document.component(task.component_ref.name)
    for name, parameter in target.input_definitions.parameters.items():
        optional = parameter.is_optional or parameter.HasField("default_value")
        if not optional and name not in task.inputs.parameters and name != item:
            yield f"{path}.inputs.parameters", f"{name!r} is required by {task.component_ref.name!r}"
    for name, artifact in target.input_definitions.artifacts.items():
        if not artifact.is_optional and name not in task.inputs.artifacts and name != item:
            yield f"{path}.inputs.artifacts", f"{name!r} is required by {task.component_ref.name!r}"


def _parameter_faults(document: PipelineDocument, component: Any, task: Any, given: Any, path: str) -> Iterator[Fault]:
    kind = given.WhichOneof("kind")
    if kind is None:
        yield path, "has no source"
    elif kind == "component_input_parameter":
        name, _ = split_subvariable(given.component_input_parameter, component.input_definitions.parameters)
        if name not in component.input_definitions.parameters:
            yield path, f"the component has no input parameter {given.component_input_parameter!r}"
    elif kind == "task_output_parameter":
        source = given.task_output_parameter
        producer = document.component(component.dag.tasks[source.producer_task].component_ref.name)
        if source.output_parameter_key not in producer.output_definitions.parameters:
            yield path, f"{source.producer_task!r} has no output parameter {source.output_parameter_key!r}"
    elif kind == "runtime_value":
        if given.runtime_value.WhichOneof("value") == "runtime_parameter":
            name = given.runtime_value.runtime_parameter
            if name not in document.spec.root.input_definitions.parameters:
                yield path, f"the pipeline has no parameter {name!r}"
        else:
            known = set(task.inputs.parameters)
            for text in texts_of(to_python(given.runtime_value.constant)):
                used, unknown = names_in(text)
                for name in sorted(unknown):
                    yield path, f"unknown placeholder {name}"
                for name in sorted(used - known):
                    yield path, f"a placeholder names {name!r}, which is not an input of the task"


def _iterator_faults(task: Any, iterator: str, path: str) -> Iterator[Fault]:
    spec = getattr(task, iterator)
    here = f"{path}.{_camel(iterator)}"
    if not spec.item_input:
        yield f"{here}.itemInput", "is required"
    if iterator == "artifact_iterator":
        if spec.items.input_artifact not in task.inputs.artifacts:
            yield f"{here}.items.inputArtifact", f"{spec.items.input_artifact!r} is not an input of the task"
        return
    kind = spec.items.WhichOneof("kind")
    if kind == "raw":
        try:
            items = json.loads(spec.items.raw)
        except ValueError:
            items = None
        if not isinstance(items, list) and not names_in(spec.items.raw)[0]:
            yield f"{here}.items.raw", "must be a JSON list"
    elif kind == "input_parameter":
        if spec.items.input_parameter not in task.inputs.parameters:
            yield f"{here}.items.inputParameter", f"{spec.items.input_parameter!r} is not an input of the task"
    else:
        yield f"{here}.items", "is required"
    if task.iterator_policy.parallelism_limit < 0:
        yield f"{path}.iteratorPolicy.parallelismLimit", "must not be negative"


def _condition_faults(task: Any, path: str) -> Iterator[Fault]:
    here = f"{path}.triggerPolicy.condition"
    try:
        condition = Condition(task.trigger_policy.condition)
    except (ConditionError, RecursionError) as error:
        yield here, str(error) or "nested too deep"
        return
    for name in sorted(condition.inputs - set(task.inputs.parameters)):
        yield here, f"{name!r} is not an input of the task"


def _output_faults(document: PipelineDocument, component: Any, path: str) -> Iterator[Fault]:
    tasks = component.dag.tasks

    def outputs(task: str, kind: str) -> Any:
        if task not in tasks:
            return None
        return getattr(document.component(tasks[task].component_ref.name).output_definitions, kind)

    for name, output in component.dag.outputs.parameters.items():
        here = f"{path}.outputs.parameters[{name!r}]"
        kind = output.WhichOneof("kind")
        selectors = (
            [output.value_from_parameter]
            if kind == "value_from_parameter"
            else output.value_from_oneof.parameter_selectors
        )
        for selector in selectors:
            found = outputs(selector.producer_subtask, "parameters")
            if found is None or selector.output_parameter_key not in found:
                yield here, f"{selector.producer_subtask!r} has no output parameter {selector.output_parameter_key!r}"
    for name, output in component.dag.outputs.artifacts.items():
        for selector in output.artifact_selectors:
            found = outputs(selector.producer_subtask, "artifacts")
            if found is None or selector.output_artifact_key not in found:
                yield (
                    f"{path}.outputs.artifacts[{name!r}]",
                    f"{selector.producer_subtask!r} has no output artifact {selector.output_artifact_key!r}",
                )


def _check_extent(document: PipelineDocument) -> None:
    """Counts the tasks that the DAGs unfold to, and measures their paths, without unfolding them."""
    known: dict[str, tuple[int, int, int]] = {}

    def extent(component: Any, name: str, above: tuple[str, ...]) -> tuple[int, int, int]:
        if len(above) > MAX_NESTING:
            raise InvalidArgument(f"DAGs are nested deeper than {MAX_NESTING}", field=f"{FIELD}.components")
        total, depth, length = 0, 0, 0
        for own, task in component.dag.tasks.items():
            child = task.component_ref.name
            if child in above:
                raise InvalidArgument(f"{child!r} contains itself", field=f"{FIELD}.components[{name!r}].dag")
            if child not in known:
                known[child] = extent(document.component(child), child, (*above, child))
            total += 1 + known[child][0]
            depth = max(depth, 1 + known[child][1])
            length = max(length, len(own) + _INDEX_CHARACTERS + known[child][2])
        if total > MAX_TASKS:
            raise InvalidArgument(f"unfolds to more than {MAX_TASKS} tasks", field=f"{FIELD}.root.dag")
        if depth > MAX_NESTING:
            raise InvalidArgument(f"DAGs are nested deeper than {MAX_NESTING}", field=f"{FIELD}.components")
        if length > MAX_PATH:
            message = f"the names of nested tasks are longer than {MAX_PATH} characters in all"
            raise InvalidArgument(message, field=f"{FIELD}.components")
        return total, depth, length

    extent(document.spec.root, "root", ())


def _is_safe(name: str) -> bool:
    """Tells whether a name can be part of a path: no slashes, no dots alone."""
    return bool(_NAME.match(name)) and ".." not in name


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)
