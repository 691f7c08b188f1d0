"""Drives one run from where the database says it is to its end.

A run is a tree of tasks, each known by its path (`train`, `exit-handler-1/for-loop-2[3]/add`). The driver walks the
tree; what has ended already is read back and not done again, which is all that going on after a crash takes.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from mlmesh_kit.errors import Unavailable
from mlmesh_kit.files import remove_tree
from mlmesh_kit.launch import sweep

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine.capacity import Capacity
from mlmesh_pipeline.engine.inputs import Outcome
from mlmesh_pipeline.engine.leaves import Leaves, attempt_mark
from mlmesh_pipeline.engine.paths import RunPaths
from mlmesh_pipeline.engine.records import Records
from mlmesh_pipeline.engine.surroundings import Surroundings
from mlmesh_pipeline.engine.walk import Walk
from mlmesh_pipeline.engine.worker import Worker
from mlmesh_pipeline.ir.document import parse
from mlmesh_pipeline.ir.runnable import has_workspace
from mlmesh_pipeline.resources import Attempt, AttemptState, Problem, Run, RuntimeState
from mlmesh_pipeline.store import CacheStore, RunStore, TaskStore
from mlmesh_pipeline.store.fence import Fence, LostLease

logger = logging.getLogger(__name__)
T = TypeVar("T")

_INTERNAL, _CANCELLED = 13, 1  # google.rpc.Code


@dataclass(frozen=True, slots=True)
class Stores:
    """What a driver reads and writes."""

    runs: RunStore
    tasks: TaskStore
    cache: CacheStore


class Driver:
    """Drives a run.

    Args:
        run: The run; its lease is ours.
        fence: The lease.
        stores: The database.
        worker: Runs attempts.
        capacity: What attempts take of the machine, over all runs.
        database: Executor for what blocks.
        settings: Of the service.
    """

    def __init__(
        self,
        run: Run,
        fence: Fence,
        stores: Stores,
        *,
        worker: Worker,
        capacity: Capacity,
        database: Executor,
        settings: Settings,
    ) -> None:
        self.run = run
        self._fence = fence
        self._stores = stores
        self._worker = worker
        self._capacity = capacity
        self._database = database
        self._settings = settings
        self._paths = RunPaths(settings.service_dir / "runs", settings.resolved_artifact_root, run)
        self._records = Records(run.run_id, stores.tasks, fence, self._db)
        self._leaves: Leaves | None = None
        self._has_workspace = False
        self._canceled: bool = False
        self._walk: asyncio.Task[Outcome] | None = None

    def cancel(self) -> None:
        """Ends the run, CANCELED, with all its processes."""
        self._canceled = True
        if self._leaves is not None:
            self._leaves.terminated = True
        if self._walk is not None:
            self._walk.cancel()

    async def drive(self) -> None:
        """Drives the run to its end; when cancelled from outside, leaves it to be driven on later.

        Raises:
            LostLease: Another service drives it now; our processes have been ended.
        """
        try:
            walk = await self._begin()
            if not self._canceled and self.run.state != RuntimeState.CANCELING:
                await self._set_state(RuntimeState.RUNNING)
            if self._canceled or self.run.state == RuntimeState.CANCELING:
                await self._end_canceled()
                return
            self._walk = asyncio.create_task(walk.whole(), name=f"run {self.run.run_id}")
            outcome = await self._walk
        except asyncio.CancelledError:
            if not self._canceled:
                await self._stop_walking()
                raise
            await self._stop_walking()
            await self._end_canceled()
            return
        except Exception as error:
            if _holds_a(error, LostLease):
                raise LostLease(self._fence.key) from error
            if _holds_a(error, Unavailable):  # the database is away: the run goes on when it is back
                raise
            logger.exception("run %s could not be driven", self.run.run_id)
            problem = Problem(_INTERNAL, "internal error of the pipeline service; see its log")
            await self._records.close(RuntimeState.CANCELED, problem)
            await self._end(RuntimeState.FAILED, problem)
            return
        await self._records.close(
            RuntimeState.SKIPPED, Problem(0, "not run: its loop has fewer items than before the retry")
        )
        await self._end(RuntimeState.SUCCEEDED if outcome.succeeded else outcome.state, outcome.problem)

    async def _begin(self) -> Walk:
        document = parse(await self._db(self._stores.runs.spec, self.run.spec_digest))
        self._has_workspace = has_workspace(document)
        if self._has_workspace:
            self._paths.workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._records.load()
        attempts = await self._db(self._stores.tasks.attempts_of, self.run.run_id)
        for attempt in attempts:
            if attempt.state == AttemptState.RUNNING:
                await asyncio.to_thread(self._clear, attempt)
        await self._db(self._stores.tasks.interrupt, self.run.run_id, self._fence)
        self.run = await self._db(self._stores.runs.get, self.run.run_id)
        around = Surroundings(self.run, document, self._paths, self._has_workspace)
        self._leaves = Leaves(
            around,
            self._records,
            tasks=self._stores.tasks,
            cache=self._stores.cache,
            fence=self._fence,
            database=self._db,
            worker=self._worker,
            capacity=self._capacity,
            settings=self._settings,
        )
        self._leaves.remember(attempts)
        self._leaves.terminated = self._canceled
        return Walk(around, self._records, self._leaves, self._settings.max_loop_items)

    def _clear(self, attempt: Attempt) -> None:
        """Ends what an attempt of a service that died has left: its processes, then its scratch folder."""
        sweep(attempt.pid, attempt.pid_started, attempt_mark(attempt.task_id, attempt.number))
        remove_tree(self._paths.attempt(attempt.task_id, attempt.number))

    async def _stop_walking(self) -> None:
        if self._walk is not None:
            self._walk.cancel()
            with contextlib.suppress(BaseException):
                await asyncio.shield(self._walk)

    async def _end_canceled(self) -> None:
        problem = Problem(_CANCELLED, "the run was terminated")
        await self._records.close(RuntimeState.CANCELED, problem)
        await self._end(RuntimeState.CANCELED, problem)

    async def _end(self, state: RuntimeState, problem: Problem | None) -> None:
        if state == RuntimeState.SUCCEEDED and self._has_workspace:  # else a retry may want it
            await asyncio.to_thread(remove_tree, self._paths.workspace)
        await self._set_state(state, problem)

    async def _set_state(self, state: RuntimeState, problem: Problem | None = None) -> None:
        if self.run.state != state:
            state = await self._db(self._stores.runs.set_state, self.run.run_id, state, problem, self._fence)
            self.run = replace(self.run, state=state, problem=problem)

    async def _db(self, function: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._database, partial(function, *arguments))


def _holds_a(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kind) is not None
    return isinstance(error, kind)
