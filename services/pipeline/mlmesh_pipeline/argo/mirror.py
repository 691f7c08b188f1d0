"""Writes into a run's records what Argo makes of its tasks: the same tasks, attempts and states as a local run has."""

import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

from mlmesh_pipeline.argo.names import task_id_of
from mlmesh_pipeline.argo.nodes import Node, Nodes
from mlmesh_pipeline.argo.outcomes import NO_WORD
from mlmesh_pipeline.argo.state import Record, RunState
from mlmesh_pipeline.argo.tree import Place, Tree
from mlmesh_pipeline.argo.workflow import CLAIM_IMAGES
from mlmesh_pipeline.engine.inputs import Outcome
from mlmesh_pipeline.engine.records import Blocking, Records, outcome_of
from mlmesh_pipeline.engine.steps import blocked_words, outcome_of_dag, outcome_of_loop, with_item
from mlmesh_pipeline.ir.check import upstream_of
from mlmesh_pipeline.ir.proto import TriggerStrategy
from mlmesh_pipeline.resources import (
    Attempt,
    AttemptState,
    Problem,
    Run,
    RuntimeState,
    Task,
    TaskKind,
    Values,
    now,
)
from mlmesh_pipeline.store import TaskStore
from mlmesh_pipeline.store.fence import Fence

logger = logging.getLogger(__name__)
_UNKNOWN = 2  # google.rpc.Code
_COMPLETED = TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED


class Mirror:
    """The records of one run.

    Args:
        run: The run.
        tree: Its tasks.
        state: What its pods have written.
        tasks: The database.
        fence: Of the run.
        database: Runs calls of the database.
        elsewhere: Runs calls of the object store, again while it is away.
        keep_log: Keeps the log of an attempt that has ended, by pod, task id and number; gives its last lines.
    """

    def __init__(
        self,
        run: Run,
        tree: Tree,
        state: RunState,
        *,
        tasks: TaskStore,
        fence: Fence,
        database: Blocking,
        elsewhere: Blocking,
        keep_log: Callable[[str, str, int], Awaitable[str]],
    ) -> None:
        self._run = run
        self._tree = tree
        self._state = state
        self._tasks = tasks
        self._fence = fence
        self._db = database
        self._elsewhere = elsewhere
        self._keep_log = keep_log
        self._records = Records(run.run_id, tasks, fence, database)
        self._attempts: dict[str, Attempt] = {}
        self._numbers: dict[str, int] = {}
        self._items: dict[str, list[Any]] = {}
        self._nodes = Nodes(None)
        self._over: Problem | None = None
        self._canceled = False

    async def load(self) -> None:
        """Reads the records that there are."""
        await self._records.load()
        for attempt in await self._db(self._tasks.attempts_of, self._run.run_id):
            self._attempts[attempt.pod] = attempt
            self._numbers[attempt.task_id] = max(self._numbers.get(attempt.task_id, 0), attempt.number)

    async def carry_over(self) -> None:
        """Tells the pods of a new try what the run keeps: tasks of an earlier try, or of the run that it repeats."""
        for task in list(self._records.known.values()):
            if task.state.is_final and task.kind != TaskKind.ITERATION:
                record = Record(task.state, task.outputs, task.problem, task.fingerprint, task.cached_from)
                await self._elsewhere(self._state.end, task.path, record)

    async def sync(self, nodes: Nodes, over: Problem | None, *, canceled: bool) -> Outcome | None:
        """Brings the records up to date.

        Args:
            nodes: Of the Workflow.
            over: Why tasks that have not ended never will; None while the Workflow goes on.
            canceled: Whether the run was terminated: what ended without a word ended by that.

        Returns:
            How the run ended; None while it goes on.
        """
        self._nodes, self._over, self._canceled = nodes, over, canceled
        return await self._dag(self._tree.document.spec.root, "", "")

    async def cancel(self, problem: Problem) -> None:
        """Ends all tasks that have not ended, CANCELED."""
        await self._records.close(RuntimeState.CANCELED, problem)

    # -- the walk ------------------------------------------------------------------------------------------------

    async def _dag(self, dag: Any, around: str, parent_id: str) -> Outcome | None:
        tasks = dag.dag.tasks
        order = list(TopologicalSorter({name: upstream_of(task) for name, task in tasks.items()}).static_order())
        places = {name: self._tree.child(dag, around, name) for name in order}
        known = self._records.known
        await self._records.add([self._new(place, parent_id) for place in places.values() if place.path not in known])
        outcomes: dict[str, Outcome] = {}
        for name in order:
            outcome = await self._task(places[name], outcomes)
            if outcome is not None:
                outcomes[name] = outcome
        if len(outcomes) < len(order):
            return None
        return _canceled_among(outcomes.values()) or outcome_of_dag(dag, outcomes)

    async def _task(self, place: Place, outcomes: Mapping[str, Outcome]) -> Outcome | None:
        task = self._records.known[place.path]
        if task.state.is_final:
            return outcome_of(task)
        upstream = {name: outcomes[name] for name in upstream_of(place.spec) if name in outcomes}
        if len(upstream) < len(upstream_of(place.spec)):
            return None
        if _canceled_among(upstream.values()):
            return await self._lost(task, None)
        blocked = sorted(name for name, outcome in upstream.items() if not outcome.succeeded)
        if blocked and place.spec.trigger_policy.strategy != _COMPLETED:
            why = f"not run: {blocked_words(blocked, upstream)}"
            return await self._records.skip(task, why)
        return await self._driven(place, task)

    async def _driven(self, place: Place, task: Task) -> Outcome | None:
        """Follows what has a driver: all but iterations that are DAGs."""
        driver = self._nodes.driver(place.path)
        if self._over is None and (driver is None or not driver.has_ended):
            return None
        if task.state == RuntimeState.PENDING:
            begun = await self._elsewhere(self._state.begun, place.path)
            record = await self._elsewhere(self._state.ended, place.path)
            if begun is not None:
                task = replace(task, inputs=begun[0], fingerprint=begun[1])
            started = task.started_at or (driver.started_at if driver is not None else 0) or now()
            task = replace(task, started_at=started)
            if record is not None and not self._has_pod(place, record, driver):
                return await self._ended(task, record)
            if record is None and begun is None:
                return await self._lost(task, driver)
            task = await self._records.start(task, task.inputs)
        if place.is_loop:
            return await self._loop(place, task)
        if place.is_dag:
            return await self._nested(place, task)
        return await self._container(place, task)

    def _has_pod(self, place: Place, record: Record, driver: Node | None) -> bool:
        """Tells whether a pod wrote how a task ended. Its node may come later than what it wrote: it is waited for."""
        if place.is_loop or place.is_dag or driver is None or not driver.succeeded:
            return False
        executor = self._tree.document.executor(place.component.executor_label)
        if executor.WhichOneof("spec") != "container" or executor.container.image in CLAIM_IMAGES:
            return False
        return record.state in {RuntimeState.SUCCEEDED, RuntimeState.FAILED}

    async def _nested(self, place: Place, task: Task) -> Outcome | None:
        outcome = await self._dag(place.component, place.path, task.task_id)
        return None if outcome is None else await self._finish(task, outcome)

    async def _loop(self, place: Place, task: Task) -> Outcome | None:
        if place.path not in self._items:
            found: list[Any] | None = await self._elsewhere(self._state.items, place.path)
            self._items[place.path] = found or []
        items = self._items[place.path]
        places = [self._tree.iteration(place, number) for number in range(len(items))]
        known = self._records.known
        await self._records.add([self._new(one, task.task_id, task) for one in places if one.path not in known])
        outcomes = []
        for one, item in zip(places, items, strict=True):
            outcome = await self._iteration(one, with_item(task.inputs, place.item_input, item))
            if outcome is not None:
                outcomes.append(outcome)
        if len(outcomes) < len(items):
            return None
        return await self._finish(task, _canceled_among(outcomes) or outcome_of_loop(place.component, outcomes))

    async def _iteration(self, place: Place, inputs: Values) -> Outcome | None:
        task = self._records.known[place.path]
        if task.state.is_final:
            return outcome_of(task)
        if not place.is_dag:
            return await self._driven(place, task)
        if task.state == RuntimeState.PENDING:
            if not self._nodes.has_begun(place.path) and self._over is None:
                return None
            task = await self._records.start(task, inputs)
        return await self._nested(place, task)

    async def _container(self, place: Place, task: Task) -> Outcome | None:
        why = ""
        for pod in self._nodes.pods(place.path):
            why = await self._attempt(task, pod) or why
        executor = self._nodes.executor(place.path)
        if self._over is None and (executor is None or not executor.has_ended):
            return None
        record = await self._elsewhere(self._state.ended, place.path)
        if record is not None:
            return await self._ended(task, record, executor)
        return await self._lost(task, executor, why)

    # -- attempts ------------------------------------------------------------------------------------------------

    async def _attempt(self, task: Task, pod: Node) -> str:
        """Writes how a pod stands; gives why it failed, or nothing."""
        attempt = self._attempts.get(pod.ident)
        if attempt is None:
            number = self._numbers.get(task.task_id, 0) + 1
            attempt = Attempt(
                attempt_id=str(uuid.uuid5(uuid.UUID(task.task_id), pod.ident)),
                task_id=task.task_id,
                run_id=task.run_id,
                number=number,
                state=AttemptState.RUNNING,
                owner=self._fence.owner,
                started_at=pod.started_at or now(),
                pod=pod.ident,
            )
            await self._db(self._tasks.begin_attempt, attempt, self._fence)
            self._numbers[task.task_id] = number
            self._attempts[pod.ident] = attempt
        if attempt.state == AttemptState.RUNNING and (pod.has_ended or self._over is not None):
            tail = await self._keep_log(pod.ident, task.task_id, attempt.number)
            state, message = AttemptState.SUCCEEDED, ""
            if not pod.succeeded:
                message = self._words(pod, tail)
                state = AttemptState.CANCELED if self._canceled else AttemptState.FAILED
            attempt = replace(
                attempt, state=state, message=message, exit_code=pod.exit_code, finished_at=pod.finished_at or now()
            )
            await self._db(self._tasks.save_attempt, attempt, self._fence)
            self._attempts[pod.ident] = attempt
        return attempt.message

    def _words(self, pod: Node, tail: str) -> str:
        words = f"exited with code {pod.exit_code}" if pod.exit_code else pod.message or NO_WORD.message
        if pod.exit_code and "OOMKilled" in pod.message:
            words += " (out of memory)"
        return f"{words}: {tail}" if tail else words

    # -- records -------------------------------------------------------------------------------------------------

    def _new(self, place: Place, parent_id: str, loop: Task | None = None) -> Task:
        number = place.iteration
        display_name = f"{loop.display_name}[{number}]" if loop is not None else place.spec.task_info.name
        return Task(
            task_id=task_id_of(self._run.run_id, place.path),
            run_id=self._run.run_id,
            path=place.path,
            name=place.name,
            display_name=display_name or place.name,
            kind=self._tree.kind(place),
            parent_id=parent_id,
            iteration=-1 if number is None else number,
            created_at=now(),
            upstream=() if loop is not None else tuple(sorted(upstream_of(place.spec))),
        )

    async def _ended(self, task: Task, record: Record, node: Node | None = None) -> Outcome:
        task = replace(task, cached_from=record.cached_from, fingerprint=record.fingerprint or task.fingerprint)
        return await self._finish(task, record.outcome, record.problem, node)

    async def _lost(self, task: Task, node: Node | None, why: str = "") -> Outcome:
        """Ends a task of which nothing is written, by what Argo says of it."""
        if self._canceled:
            problem = Problem(1, "the run was terminated")
            return await self._finish(task, Outcome(RuntimeState.CANCELED, problem=problem), node=node)
        if why:
            count = len(self._nodes.pods(task.path))
            times = f" (attempt {count} of {count})" if count > 1 else ""
            problem = Problem(_UNKNOWN, f"{why}{times}")
        elif node is not None and node.message:
            problem = Problem(_UNKNOWN, node.message)
        else:
            problem = self._over or NO_WORD
        # For the final status of a task that comes after it, if that is not quicker.
        failed = Record(RuntimeState.FAILED, Values(), problem, task.fingerprint)
        await self._elsewhere(self._state.end, task.path, failed)
        return await self._finish(task, Outcome(RuntimeState.FAILED, problem=problem), node=node)

    async def _finish(
        self, task: Task, outcome: Outcome, problem: Problem | None = None, node: Node | None = None
    ) -> Outcome:
        told = replace(outcome, problem=problem or outcome.problem)
        await self._records.finish(task, told, finished_at=node.finished_at if node is not None else 0)
        return outcome


def _canceled_among(outcomes: Iterable[Outcome]) -> Outcome | None:
    return next((outcome for outcome in outcomes if outcome.state == RuntimeState.CANCELED), None)
