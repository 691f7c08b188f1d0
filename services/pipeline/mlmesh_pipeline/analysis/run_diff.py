"""In what two runs differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf import json_format

from mlmesh_pipeline.analysis.differences import (
    MISSING,
    Difference,
    Kind,
    container_differences,
    same,
    unified,
)
from mlmesh_pipeline.analysis.wiring import executor_of, interface, wiring
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.ir.places import Place, paths_in, place_of
from mlmesh_pipeline.resources import Artifact, Run, Task


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run with all that is known of it.

    Attributes:
        run: It.
        document: Its pipeline.
        tasks: Its tasks.
        attempts: How often each was tried, by id.
    """

    run: Run
    document: PipelineDocument
    tasks: Sequence[Task]
    attempts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """A value in both runs; `MISSING` where it is not there."""

    name: str
    before: Any
    after: Any

    @property
    def delta(self) -> float | None:
        """Second minus first, where both are numbers."""
        if not (_is_number(self.before) and _is_number(self.after)):
            return None
        try:
            return float(self.after) - float(self.before)
        except OverflowError:  # a whole number may have more digits than a float
            return None


@dataclass(frozen=True, slots=True)
class TaskPair:
    """A task in both runs; None where it is not there. Only what differs is listed."""

    path: str
    before: Task | None
    after: Task | None
    changed: bool
    inputs: list[Pair] = field(default_factory=list)
    input_artifacts: list[Pair] = field(default_factory=list)
    outputs: list[Pair] = field(default_factory=list)
    output_artifacts: list[Pair] = field(default_factory=list)
    metadata: list[Pair] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunComparison:
    """What `compare_runs` finds."""

    before: RunRecord
    after: RunRecord
    parameters: list[Pair]
    pipeline: list[Difference]
    tasks: list[TaskPair]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare_runs(before: RunRecord, after: RunRecord) -> RunComparison:
    """Compares two runs; tasks are matched by path."""
    old = {task.path: task for task in before.tasks}
    new = {task.path: task for task in after.tasks}
    paths = [*new, *(path for path in old if path not in new)]
    return RunComparison(
        before,
        after,
        pairs(before.run.parameters, after.run.parameters),
        compare_pipelines(before.document, after.document) if before.document is not after.document else [],
        [_tasks(path, old.get(path), new.get(path)) for path in paths],
    )


def pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Pair]:
    """Gives the values that are not the same in both."""
    return [
        Pair(name, before.get(name, MISSING), after.get(name, MISSING))
        for name in sorted({*before, *after})
        if not same(before.get(name, MISSING), after.get(name, MISSING))
    ]


def compare_pipelines(before: PipelineDocument, after: PipelineDocument) -> list[Difference]:
    """Compares two pipelines, task by task; a component that many tasks run is compared once."""
    found: list[Difference] = []
    if before.name != after.name:
        found.append(Difference(Kind.OTHER, "name of the pipeline", before.name, after.name))
    old_paths, new_paths = list(paths_in(before)), list(paths_in(after))
    seen: set[tuple[str, str]] = set()
    for path in [*new_paths, *(path for path in old_paths if path not in set(new_paths))]:
        old, new = place_of(before, path), place_of(after, path)
        if old is None or new is None:
            found.append(Difference(Kind.TASK, path, _component_name(old), _component_name(new)))
            continue
        found += _wiring(path, old, new)
        key = (old.task.component_ref.name, new.task.component_ref.name)
        if key not in seen:
            seen.add(key)
            found += _components(path, (before, old), (after, new))
    return found


def _component_name(place: Place | None) -> Any:
    return place.task.component_ref.name if place else MISSING


def _wiring(path: str, before: Place, after: Place) -> Iterator[Difference]:
    old, new = wiring(before.task), wiring(after.task)
    if not same(old, new):
        yield Difference(Kind.WIRING, path, text=unified(_lines(old), _lines(new)))


def _components(
    path: str, before: tuple[PipelineDocument, Place], after: tuple[PipelineDocument, Place]
) -> Iterator[Difference]:
    old, new = before[1].component, after[1].component
    if not same(interface(old), interface(new)):
        text = unified(_lines(interface(old)), _lines(interface(new)))
        yield Difference(Kind.OUTPUTS, f"{path}: inputs and outputs", text=text)
    kinds = [one.WhichOneof("implementation") for one in (old, new)]
    if kinds[0] != kinds[1]:
        yield Difference(Kind.OTHER, f"{path}: implementation", *kinds)
        return
    if kinds[0] == "dag":
        return
    if before[1].container is not None and after[1].container is not None:
        containers = [json_format.MessageToDict(one[1].container) for one in (before, after)]
        for each in container_differences(*containers):
            single = each.kind in {Kind.SOURCE, Kind.IMAGE, Kind.COMMAND, Kind.RESOURCES, Kind.PACKAGES, Kind.FUNCTION}
            yield replace(each, name=path if single else f"{path}: {each.name}")
        return
    executors = [executor_of(document, place.component) for document, place in (before, after)]
    if not same(*executors):
        yield Difference(Kind.OTHER, f"{path}: executor", text=unified(*map(_lines, executors)))


def _lines(content: Mapping[str, Any]) -> list[str]:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).splitlines()


def _tasks(path: str, before: Task | None, after: Task | None) -> TaskPair:
    if before is None or after is None:
        return TaskPair(path, before, after, changed=True)
    found = TaskPair(
        path,
        before,
        after,
        changed=False,
        inputs=pairs(before.inputs.parameters, after.inputs.parameters),
        input_artifacts=list(_artifacts(before, after, "inputs")),
        outputs=pairs(before.outputs.parameters, after.outputs.parameters),
        output_artifacts=list(_artifacts(before, after, "outputs")),
        metadata=list(_metadata(before, after)),
    )
    lists = (found.inputs, found.input_artifacts, found.outputs, found.output_artifacts, found.metadata)
    return replace(found, changed=any(lists) or _end(before) != _end(after))


def _end(task: Task) -> tuple[str, str]:
    """Gives how a task ended; one that was answered from the cache counts as one that succeeded."""
    if task.cached_from:
        return "SUCCEEDED", ""
    return task.state.value, task.problem.message if task.problem else ""


def _artifacts(before: Task, after: Task, which: str) -> Iterator[Pair]:
    old, new = _flat(before, which), _flat(after, which)
    for name in sorted({*old, *new}):
        one, other = old.get(name), new.get(name)
        if one is None or other is None:
            yield Pair(name, one or MISSING, other or MISSING)
        elif _content(one, before) != _content(other, after):
            yield Pair(name, one, other)


def _content(artifact: Artifact, task: Task) -> tuple[str, str]:
    """Gives what an artifact is; where its content is not known, its place, but for the run that made it."""
    return artifact.kind, artifact.digest or artifact.uri.replace(task.run_id, "")


def _metadata(before: Task, after: Task) -> Iterator[Pair]:
    old, new = _flat(before, "outputs"), _flat(after, "outputs")
    for name in sorted({*old, *new}):
        one = old[name].metadata if name in old else {}
        other = new[name].metadata if name in new else {}
        for each in pairs(one, other):
            yield replace(each, name=f"{name}.{each.name}")


def _flat(task: Task, which: str) -> dict[str, Artifact]:
    found = {}
    for name, items in getattr(task, which).artifacts.items():
        for index, artifact in enumerate(items):
            found[f"{name}[{index}]" if len(items) > 1 else name] = artifact
    return found
