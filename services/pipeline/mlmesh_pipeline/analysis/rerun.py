"""What a new run can take over from an earlier one, and what of it runs anew."""

import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Any

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_pipeline.analysis.differences import same
from mlmesh_pipeline.analysis.outputs import Look, changed_outputs
from mlmesh_pipeline.analysis.wiring import executor_of, interface, wiring
from mlmesh_pipeline.ir.check import upstream_of
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.ir.places import without_indices
from mlmesh_pipeline.resources import RuntimeState, Task, now

_UNENDED = frozenset({RuntimeState.PENDING, RuntimeState.RUNNING, RuntimeState.CANCELED})


@dataclass(slots=True)
class Plan:
    """What a new run begins with.

    Attributes:
        tasks: Its tasks that are there from the beginning, parents before children: those that are reused, ended, and
            the DAGs and loops that they are in, PENDING.
        reused: Paths of the tasks whose outputs are taken over.
        anew: Paths of the tasks that run anew, and why; of a DAG or loop that runs anew whole only its own.
    """

    tasks: list[Task] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    anew: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pipelines:
    """The pipeline of the earlier run and that of the new one; they may be the same."""

    before: PipelineDocument
    after: PipelineDocument


def changed_parameters(before: Mapping[str, Any], after: Mapping[str, Any]) -> frozenset[str]:
    """Names the parameters that are not the same in two runs."""
    missing = object()
    return frozenset(
        name
        for name in {*before, *after}
        if (name in before) != (name in after) or not same(before.get(name, missing), after.get(name, missing))
    )


def plan_rerun(
    pipelines: Pipelines, earlier: Sequence[Task], named: Set[str], changed: frozenset[str], look: Look
) -> Plan:
    """Plans a run.

    A task runs anew if it is named, waits for one that runs anew or is in a DAG that does, takes a parameter that has
    changed, is not the same in both pipelines, did not succeed in the earlier run, or if its outputs are not there.
    One whose condition did not hold, and holds no more now, is neither.

    Args:
        pipelines: Of the earlier run and of the new one.
        earlier: Tasks of the earlier run.
        named: Paths of the tasks that are to run anew; one without iterations is meant for all of them.
        changed: Names of the parameters that have changed.
        look: Looks at artifacts as they are now.

    Raises:
        FailedPrecondition: Nothing would run anew, or not all that is named.
    """
    walk = _Walk(pipelines, earlier, named, changed, look)
    walk.dag(pipelines.before.spec.root, pipelines.after.spec.root, "", changed)
    plan = walk.plan
    anew = {without_indices(path) for path, _ in plan.anew}
    for name in sorted(named):
        static = without_indices(name)
        if not any(static == path or static.startswith(f"{path}/") for path in anew):
            raise FailedPrecondition(f"task {name!r} would not run: a condition that it is under does not hold")
    if not plan.anew:
        raise FailedPrecondition(
            "nothing would run anew: all tasks have succeeded and nothing has changed; say from which task on to run"
        )
    return plan


class _Walk:
    """Walks both pipelines, and decides task by task."""

    def __init__(
        self,
        pipelines: Pipelines,
        earlier: Sequence[Task],
        named: Set[str],
        changed: frozenset[str],
        look: Look,
    ) -> None:
        self._before, self._after = pipelines.before, pipelines.after
        self._named = named
        self._changed = changed
        self._look = look
        self._earlier = {task.path: task for task in earlier}
        self._by_id = {task.task_id: task for task in earlier}
        self._iterations: dict[str, list[Task]] = {}
        for task in earlier:
            if task.iteration >= 0:
                self._iterations.setdefault(task.parent_id, []).append(task)
        self._parents = {task.parent_id for task in earlier}
        self._made: dict[str, str] = {}
        self.plan = Plan()

    def dag(self, before: Any, after: Any, prefix: str, dirty_inputs: frozenset[str]) -> bool:
        """Decides the tasks of a DAG; tells whether it has to be taken for changed."""
        tasks = after.dag.tasks
        dirty: set[str] = set()
        for name in TopologicalSorter({name: upstream_of(task) for name, task in tasks.items()}).static_order():
            path = f"{prefix}/{name}" if prefix else name
            upstream = sorted(upstream_of(tasks[name]) & dirty)
            if upstream and not self._is_named(path):
                self._anew(path, f"follows {', '.join(upstream)}")
                dirty.add(name)
            elif self._task(path, before.dag.tasks.get(name), tasks[name], dirty_inputs):
                dirty.add(name)
        return bool(dirty) or before.dag.outputs != after.dag.outputs

    def _task(self, path: str, before: Any, after: Any, dirty_inputs: frozenset[str]) -> bool:
        """Decides a task that waits for nothing that runs anew; tells whether it, or anything in it, runs anew."""
        reason, dirty = self._reason(path, before, after, dirty_inputs)
        if reason:
            self._anew(path, reason)
            return True
        task = self._earlier.get(path)
        if task is None or (task.state in _UNENDED and task.task_id not in self._parents):
            self._anew(path, "did not run to its end in the earlier run")
            return True
        if task.state == RuntimeState.SKIPPED and not task.cached_from:  # its condition does not hold: nor will it now
            return False
        old = self._before.component(before.component_ref.name)
        new = self._after.component(after.component_ref.name)
        if after.WhichOneof("iterator"):
            return self._loop(task, old, new, dirty)
        if new.WhichOneof("implementation") == "dag":
            return self.dag(old, new, path, dirty)
        return self._leaf(task)

    def _loop(self, task: Task, before: Any, after: Any, dirty: frozenset[str]) -> bool:
        iterations = self._iterations.get(task.task_id, [])
        if not iterations and task.state != RuntimeState.SUCCEEDED:
            self._anew(task.path, "failed in the earlier run")
            return True
        changed = False
        for one in iterations:
            if one.path in self._named:
                self._anew(one.path, "named")
                changed = True
            elif after.WhichOneof("implementation") == "dag":
                changed |= self.dag(before, after, one.path, dirty)
            else:
                changed |= self._leaf(one)
        return changed

    def _leaf(self, task: Task) -> bool:
        reason = ""
        if task.state == RuntimeState.FAILED:
            reason = "failed in the earlier run"
        elif task.state != RuntimeState.SUCCEEDED and not task.cached_from:
            reason = "did not run to its end in the earlier run"
        else:
            reason = "; ".join(f"output {words}" for words in changed_outputs(task.outputs, self._look))
        if reason:
            self._anew(task.path, reason)
            return True
        self._reuse(task)
        return False

    def _reason(self, path: str, before: Any, after: Any, dirty_inputs: frozenset[str]) -> tuple[str, frozenset[str]]:
        """Says why a task runs anew whole; "" if it need not. Also gives those of its inputs that have changed."""
        none: frozenset[str] = frozenset()
        if self._is_named(path):
            return "named", none
        if before is None:
            return "is new in the pipeline", none
        if not same(wiring(before), wiring(after)):
            return "its inputs, condition or loop are others in the pipeline", none
        old = self._before.component(before.component_ref.name)
        new = self._after.component(after.component_ref.name)
        is_dag = new.WhichOneof("implementation") == "dag"
        if not same(interface(old), interface(new)) or (old.WhichOneof("implementation") == "dag") != is_dag:
            return "its component has changed", none
        dirty = self._dirty(after, dirty_inputs)
        if is_dag:
            if dirty & set(_decisive(after)):
                return f"its condition or loop depends on {', '.join(sorted(dirty & set(_decisive(after))))}", none
            return "", dirty
        if not same(executor_of(self._before, old), executor_of(self._after, new)):
            return "its component has changed", none
        return (f"its input {', '.join(sorted(dirty))} has changed" if dirty else ""), none

    def _dirty(self, task: Any, dirty_inputs: frozenset[str]) -> frozenset[str]:
        """Names the inputs of a task that come from what has changed around it."""
        found = set()
        for name, given in task.inputs.parameters.items():
            kind = given.WhichOneof("kind")
            if kind == "component_input_parameter":
                source = given.component_input_parameter
                if any(source == one or source.startswith(f"{one}-subvar-") for one in dirty_inputs):
                    found.add(name)
            elif kind == "runtime_value" and given.runtime_value.runtime_parameter in self._changed:
                found.add(name)
        texts = {
            name: given.runtime_value.constant.string_value
            for name, given in task.inputs.parameters.items()
            if given.WhichOneof("kind") == "runtime_value"
        }
        found |= {name for name, text in texts.items() if any(f"'{one}'" in text for one in found)}
        return frozenset(found)

    def _is_named(self, path: str) -> bool:
        return path in self._named or without_indices(path) in self._named

    def _anew(self, path: str, reason: str) -> None:
        self.plan.anew.append((path, reason))

    def _reuse(self, task: Task) -> None:
        new = self._row(task)
        time = now()
        self.plan.tasks.append(
            replace(
                new,
                state=RuntimeState.SKIPPED,
                started_at=time,
                finished_at=time,
                inputs=task.inputs,
                outputs=task.outputs,
                fingerprint=task.fingerprint,
                cached_from=task.cached_from or task.task_id,
            )
        )
        self.plan.reused.append(task.path)

    def _row(self, task: Task) -> Task:
        """Gives a task of the new run at the place of an earlier one, PENDING; makes those above it first."""
        parent_id = ""
        if task.parent_id:
            if task.parent_id not in self._made:
                self.plan.tasks.append(self._row(self._by_id[task.parent_id]))
            parent_id = self._made[task.parent_id]
        self._made[task.task_id] = str(uuid.uuid4())
        return Task(
            task_id=self._made[task.task_id],
            run_id="",
            path=task.path,
            name=task.name,
            display_name=task.display_name,
            kind=task.kind,
            parent_id=parent_id,
            iteration=task.iteration,
            created_at=now(),
            upstream=task.upstream,
        )


def _decisive(task: Any) -> list[str]:
    """Names the inputs that decide whether, or how often, a task runs."""
    condition = task.trigger_policy.condition
    which = task.WhichOneof("iterator")
    items: Any = getattr(task, which).items if which else None
    found = []
    for name in task.inputs.parameters:
        in_condition = f"'{name}'" in condition or f'"{name}"' in condition
        in_loop = which == "parameter_iterator" and (items.input_parameter == name or f"'{name}'" in items.raw)
        if in_condition or in_loop:
            found.append(name)
    return found
