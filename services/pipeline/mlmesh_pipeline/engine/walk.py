"""The walk over a run's tasks: DAGs, conditions and loops. What has ended already is taken as it is."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from graphlib import TopologicalSorter
from typing import Any

from mlmesh_pipeline.engine.inputs import NoValue, Outcome, name_beside, problem_of_input, resolve_inputs
from mlmesh_pipeline.engine.leaves import Leaves
from mlmesh_pipeline.engine.records import Records, outcome_of
from mlmesh_pipeline.engine.steps import (
    blocked_words,
    condition_holds,
    join,
    loop_items,
    outcome_of_dag,
    outcome_of_loop,
    with_item,
)
from mlmesh_pipeline.engine.surroundings import Surroundings
from mlmesh_pipeline.ir.check import upstream_of
from mlmesh_pipeline.ir.proto import TriggerStrategy
from mlmesh_pipeline.resources import Task, TaskKind, Values

_COMPLETED = TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED


@dataclass(frozen=True, slots=True)
class Scope:
    """A DAG that is being walked: its component, its inputs, and the task that it is."""

    component: Any
    inputs: Values
    path: str
    task_id: str


class Walk:
    """Walks over the tasks of one run.

    Args:
        around: What is the same for all tasks of the run.
        records: Of its tasks.
        leaves: Does what is no DAG and no loop.
        max_items: Most iterations of a loop.
    """

    def __init__(self, around: Surroundings, records: Records, leaves: Leaves, max_items: int) -> None:
        self._around = around
        self._records = records
        self._leaves = leaves
        self._max_items = max_items

    async def whole(self) -> Outcome:
        """Walks over the whole run."""
        run = self._around.run
        return await self._dag(Scope(self._around.document.spec.root, Values(run.parameters), "", ""))

    async def _dag(self, scope: Scope) -> Outcome:
        """Runs the tasks of a DAG, each as soon as those that it waits for have ended."""
        tasks = scope.component.dag.tasks
        waits_for = {name: upstream_of(task) for name, task in tasks.items()}
        order = list(TopologicalSorter(waits_for).static_order())
        await self._records.add([self._new(scope, name, tasks[name]) for name in order])
        running: dict[str, asyncio.Task[Outcome]] = {}
        async with asyncio.TaskGroup() as group:
            for name in order:
                upstream = {other: running[other] for other in waits_for[name]}
                running[name] = group.create_task(self._after(scope, name, tasks[name], upstream))
        outcomes = {name: task.result() for name, task in running.items()}
        return outcome_of_dag(scope.component, outcomes)

    async def _after(self, scope: Scope, name: str, spec: Any, running: Mapping[str, asyncio.Task[Outcome]]) -> Outcome:
        task = self._records.known[join(scope.path, name)]
        if task.state.is_final:
            return outcome_of(task)
        upstream = {other: await outcome for other, outcome in running.items()}
        blocked = [other for other, outcome in upstream.items() if not outcome.succeeded]
        if blocked and spec.trigger_policy.strategy != _COMPLETED:
            return await self._records.skip(task, f"not run: {blocked_words(blocked, upstream)}")
        component = self._around.document.component(spec.component_ref.name)
        try:
            inputs = resolve_inputs(
                spec,
                component,
                scope.inputs,
                upstream,
                context=self._around.context(task),
                run_parameters=self._around.run.parameters,
            )
            holds = condition_holds(spec, inputs)
        except NoValue as error:
            return await self._records.fail(task, problem_of_input(error))
        if not holds:
            return await self._records.skip(task, "not run: its condition does not hold")
        self._leaves.names[task.path] = partial(name_beside, scope.inputs.parameters, upstream)
        if spec.WhichOneof("iterator"):
            return await self._loop(task, spec, component, inputs)
        return await self._execute(task, spec, component, inputs)

    async def _execute(self, task: Task, spec: Any, component: Any, inputs: Values) -> Outcome:
        if component.WhichOneof("implementation") == "dag":
            return await self._nested(task, component, inputs)
        executor = self._around.document.executor(component.executor_label)
        if executor.WhichOneof("spec") == "importer":
            return await self._leaves.importer(task, component, executor.importer, inputs)
        return await self._leaves.container(task, spec, component, executor.container, inputs)

    async def _nested(self, task: Task, component: Any, inputs: Values) -> Outcome:
        task = await self._records.start(task, inputs)
        outcome = await self._dag(Scope(component, inputs, task.path, task.task_id))
        return await self._records.finish(task, outcome)

    async def _loop(self, task: Task, spec: Any, component: Any, inputs: Values) -> Outcome:
        iterator = getattr(spec, spec.WhichOneof("iterator"))
        try:
            items = loop_items(spec, inputs, self._around.context(task), self._max_items)
        except NoValue as error:
            return await self._records.fail(task, problem_of_input(error))
        task = await self._records.start(task, inputs)
        new = []
        for number in range(len(items)):
            path = f"{task.path}[{number}]"
            kind = TaskKind.ITERATION if component.WhichOneof("implementation") == "dag" else TaskKind.CONTAINER
            made = self._records.make(
                path,
                f"{task.name}[{number}]",
                kind,
                parent_id=task.task_id,
                display_name=f"{task.display_name}[{number}]",
            )
            new.append(replace(made, iteration=number))
        await self._records.add(new)
        limit = asyncio.Semaphore(spec.iterator_policy.parallelism_limit or len(items) or 1)

        async def iteration(number: int, item: Any) -> Outcome:
            child = self._records.known[f"{task.path}[{number}]"]
            if child.state.is_final:
                return outcome_of(child)
            async with limit:
                return await self._execute(child, spec, component, with_item(inputs, iterator.item_input, item))

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(iteration(number, item)) for number, item in enumerate(items)]
        outcomes = [one.result() for one in running]
        return await self._records.finish(task, outcome_of_loop(component, outcomes))

    def _new(self, scope: Scope, name: str, spec: Any) -> Task:
        component = self._around.document.component(spec.component_ref.name)
        if spec.WhichOneof("iterator"):
            kind = TaskKind.LOOP
        elif component.WhichOneof("implementation") == "dag":
            kind = TaskKind.DAG
        elif self._around.document.executor(component.executor_label).WhichOneof("spec") == "importer":
            kind = TaskKind.IMPORTER
        else:
            kind = TaskKind.CONTAINER
        upstream = tuple(sorted(upstream_of(spec)))
        return self._records.make(
            join(scope.path, name),
            name,
            kind,
            parent_id=scope.task_id,
            display_name=spec.task_info.name or name,
            upstream=upstream,
        )
