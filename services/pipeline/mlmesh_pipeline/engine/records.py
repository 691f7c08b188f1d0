"""The records of a run's tasks: made, changed and ended, in the database and here."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from mlmesh_pipeline.engine.inputs import NOT_RUN, Outcome, outcome_at_end
from mlmesh_pipeline.resources import Attempt, Problem, RuntimeState, Task, TaskKind, Values, now
from mlmesh_pipeline.store import TaskStore
from mlmesh_pipeline.store.fence import Fence

T = TypeVar("T")


class Blocking(Protocol):
    """Runs what blocks, elsewhere."""

    def __call__(self, function: Callable[..., T], *arguments: object) -> Awaitable[T]:
        """Calls the function; gives what it gives."""


class Records:
    """The tasks of a run, by path.

    Args:
        run_id: Of which run.
        tasks: The database.
        fence: The run's lease; without it nothing is written.
        database: Runs calls of the database.

    Attributes:
        known: The tasks as they are now.
    """

    def __init__(self, run_id: str, tasks: TaskStore, fence: Fence, database: Blocking) -> None:
        self._run_id = run_id
        self._tasks = tasks
        self._fence = fence
        self._db = database
        self.known: dict[str, Task] = {}

    async def load(self) -> None:
        """Reads the tasks that there are."""
        self.known = {task.path: task for task in await self._db(self._tasks.of_run, self._run_id)}

    def make(
        self, path: str, name: str, kind: TaskKind, *, parent_id: str, display_name: str, upstream: tuple[str, ...] = ()
    ) -> Task:
        """Makes a task, not stored yet."""
        return Task(
            task_id=str(uuid.uuid4()),
            run_id=self._run_id,
            path=path,
            name=name,
            display_name=display_name,
            kind=kind,
            parent_id=parent_id,
            created_at=now(),
            upstream=upstream,
        )

    async def add(self, tasks: list[Task]) -> None:
        """Stores those that are not known yet."""
        new = [task for task in tasks if task.path not in self.known]
        if new:
            await self._db(self._tasks.add, new, self._fence)
            self.known |= {task.path: task for task in new}

    async def start(self, task: Task, inputs: Values) -> Task:
        """Says that a task runs, with its inputs."""
        task = replace(task, state=RuntimeState.RUNNING, inputs=inputs, started_at=task.started_at or now())
        await self._save(task)
        return task

    async def finish(
        self,
        task: Task,
        outcome: Outcome,
        attempt: Attempt | None = None,
        *,
        cache_for: str = "",
        finished_at: int = 0,
    ) -> Outcome:
        """Says how a task ended; gives the outcome.

        Args:
            task: Which.
            outcome: How it ended.
            attempt: Its last one, stored along with it.
            cache_for: The namespace in whose cache it is put; empty: it is not.
            finished_at: When it ended, if not now.
        """
        task = replace(
            task,
            state=outcome.state,
            outputs=outcome.outputs,
            problem=outcome.problem,
            finished_at=finished_at or now(),
        )
        await self._db(partial(self._tasks.finish, task, attempt, self._fence, cache_for=cache_for))
        self.known[task.path] = task
        return outcome

    async def skip(self, task: Task, why: str) -> Outcome:
        """Says that a task does not run."""
        await self._save(replace(task, state=RuntimeState.SKIPPED, problem=Problem(0, why), finished_at=now()))
        return NOT_RUN

    async def fail(self, task: Task, problem: Problem) -> Outcome:
        """Says that a task failed."""
        return await self.finish(task, Outcome(RuntimeState.FAILED, problem=problem))

    async def close(self, state: RuntimeState, problem: Problem) -> None:
        """Gives a final state to the tasks that have none."""
        for task in list(self.known.values()):
            if not task.state.is_final:
                await self._save(replace(task, state=state, problem=problem, finished_at=now()))

    async def _save(self, task: Task) -> None:
        await self._db(self._tasks.save, task, self._fence)
        self.known[task.path] = task


def outcome_of(task: Task) -> Outcome:
    """Gives how a task that has ended did."""
    return outcome_at_end(task.state, task.outputs, task.problem, task.cached_from)
