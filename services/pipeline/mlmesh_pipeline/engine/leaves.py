"""The leaves of a run: importers, and containers with their attempts, retries and the cache."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from mlmesh_kit.launch import Process, mark_of

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine.capacity import Capacity, Need
from mlmesh_pipeline.engine.cluster_files import NotThere, variables
from mlmesh_pipeline.engine.fingerprint import fingerprint
from mlmesh_pipeline.engine.inputs import NoValue, Outcome, problem_of_input
from mlmesh_pipeline.engine.paths import file_path, uri_of
from mlmesh_pipeline.engine.records import Blocking, Records
from mlmesh_pipeline.engine.steps import imported, importer_metadata, importer_uri, text_of
from mlmesh_pipeline.engine.surroundings import Surroundings
from mlmesh_pipeline.engine.worker import Interrupted, TaskFailed, Work, Worker
from mlmesh_pipeline.ir.cluster_names import Source
from mlmesh_pipeline.ir.container_resources import BadResources, resources_of
from mlmesh_pipeline.ir.placeholders import UnknownPlaceholder, resolve
from mlmesh_pipeline.ir.runnable import code_of
from mlmesh_pipeline.resources import Attempt, AttemptState, Problem, RuntimeState, Task, Values, now
from mlmesh_pipeline.store import CacheStore, TaskStore
from mlmesh_pipeline.store.fence import Fence, LostLease

logger = logging.getLogger(__name__)

_ABORTED, _UNKNOWN, _NOT_READY, _INVALID, _NOT_FOUND = 10, 2, 9, 3, 5  # google.rpc.Code
_MAX_INTERRUPTIONS = 10
_LONGEST_PAUSE_SECONDS = 3600
_SUSPICIOUS_INTERRUPTIONS = 3  # it may be its own doing


class Leaves:
    """Does the importers and containers of one run.

    Args:
        around: What is the same for all tasks of the run.
        records: Of its tasks.
        tasks, cache: The database.
        fence: The run's lease.
        database: Runs calls of the database.
        worker: Runs attempts.
        capacity: What attempts take of the machine, over all runs.
        settings: Of the service.

    Attributes:
        names: For each task by path, what gives the names of secrets that are inputs or outputs beside it.
        terminated: Whether the run was terminated; else what is cancelled goes on later.
    """

    def __init__(
        self,
        around: Surroundings,
        records: Records,
        *,
        tasks: TaskStore,
        cache: CacheStore,
        fence: Fence,
        database: Blocking,
        worker: Worker,
        capacity: Capacity,
        settings: Settings,
    ) -> None:
        self._around = around
        self._records = records
        self._tasks = tasks
        self._cache = cache
        self._fence = fence
        self._db = database
        self._worker = worker
        self._capacity = capacity
        self._settings = settings
        self._attempts: dict[str, list[Attempt]] = {}
        self.names: dict[str, Callable[[Source], Any]] = {}
        self.terminated = False

    def remember(self, attempts: Iterable[Attempt]) -> None:
        """Takes the attempts that were made before the service that drove the run ended."""
        for attempt in attempts:
            self._attempts.setdefault(attempt.task_id, []).append(attempt)

    async def importer(self, task: Task, component: Any, importer: Any, inputs: Values) -> Outcome:
        """Does an importer: records what is at a URI.

        Args:
            task: Which.
            component: Its ComponentSpec.
            importer: Its ImporterSpec.
            inputs: Its inputs.
        """
        task = await self._records.start(task, inputs)
        uri = importer_uri(importer, inputs)
        if not uri:
            return await self._records.fail(task, Problem(_INVALID, "the importer has no URI"))
        uri = uri_of(uri)
        path = file_path(uri)
        if importer.download_to_workspace and path is None:
            return await self._records.fail(
                task, Problem(_NOT_READY, f"{uri} cannot be downloaded into the workspace here")
            )
        if path is not None and not path.exists():
            return await self._records.fail(task, Problem(_NOT_FOUND, f"there is nothing at {uri}"))
        context = self._around.context(task)
        try:
            metadata = importer_metadata(importer, inputs, context)
        except NoValue as error:
            return await self._records.fail(task, problem_of_input(error))
        digest, etag = await self._worker.staging.identify(uri)
        outputs = imported(importer, component, uri, metadata, digest, etag)
        return await self._records.finish(task, Outcome(RuntimeState.SUCCEEDED, outputs))

    async def container(self, task: Task, spec: Any, component: Any, container: Any, inputs: Values) -> Outcome:
        """Does a container: takes its outputs from the cache, or runs it until it succeeds or may not run again.

        Args:
            task: Which.
            spec: Its PipelineTaskSpec.
            component: Its ComponentSpec.
            container: Its PipelineContainerSpec.
            inputs: Its inputs.
        """
        run = self._around.run
        mark = fingerprint(run, component, container, inputs, spec.caching_options.cache_key)
        task = await self._records.start(replace(task, fingerprint=mark), inputs)
        cached = spec.caching_options.enable_cache
        if cached and not run.rerun_of:
            found = await self._db(self._cache.find, mark, run.namespace)
            if found is not None and await self._worker.staging.is_there(found[1]):
                task = replace(task, cached_from=found[0])
                return await self._records.finish(task, Outcome(RuntimeState.SKIPPED, found[1]))
        context = self._around.context(task)
        try:
            environment = self._environment(task, component.executor_label, container, inputs, context)
            resources = resources_of(container.resources, inputs.parameters, context)
            need = self._capacity.need(resources)
        except (UnknownPlaceholder, NotThere) as error:
            return await self._records.fail(task, Problem(_NOT_READY, str(error)))
        except BadResources as error:
            return await self._records.fail(task, Problem(_NOT_READY, f"container.resources: {error}"))

        def work_of(number: int, interruptions: int) -> Work:
            return Work(
                run_id=run.run_id,
                task_name=task.name,
                component=component,
                code=code_of(container),
                inputs=inputs,
                environment=environment,
                context=context,
                scratch=self._around.paths.attempt(task.task_id, number),
                log_path=self._around.paths.log(task.task_id, number),
                output_uri=self._around.paths.outputs(task),
                timeout_seconds=self._timeout(component.executor_label),
                resources=resources,
                mark=attempt_mark(task.task_id, number),
                number=number,
                alone=interruptions >= _SUSPICIOUS_INTERRUPTIONS,
            )

        try:
            outputs, attempt = await self._persevere(task, spec.retry_policy, need, work_of)
        except TaskFailed as error:
            return await self._records.fail(task, Problem(_UNKNOWN, str(error)))
        except Interrupted as error:
            return await self._records.fail(task, Problem(_ABORTED, str(error)))
        outcome = Outcome(RuntimeState.SUCCEEDED, outputs)
        return await self._records.finish(task, outcome, attempt, cache_for=run.namespace if cached else "")

    async def _persevere(
        self, task: Task, policy: Any, need: Need, work_of: Callable[[int, int], Work]
    ) -> tuple[Values, Attempt]:
        """Makes attempts at a task, as many as its policy grants; those before the service was restarted count.

        Args:
            task: Which.
            policy: Its RetryPolicy.
            need: What an attempt takes of the machine.
            work_of: Gives what to run, by the attempt's number and how many before it were interrupted.

        Raises:
            TaskFailed, Interrupted: Of the last attempt that it may have.
        """
        earlier = self._attempts.get(task.task_id, [])
        number = max((attempt.number for attempt in earlier), default=0)
        failed = [one for one in earlier if one.state == AttemptState.FAILED and one.started_at >= task.started_at]
        failures, interruptions = len(failed), 0
        last = TaskFailed(failed[-1].message, failed[-1].exit_code) if failed else None
        while True:
            if last is not None:
                if failures > policy.max_retry_count:
                    times = f" (attempt {failures} of {failures})" if failures > 1 else ""
                    raise TaskFailed(f"{last}{times}", last.exit_code) from last
                await asyncio.sleep(_pause_seconds(policy, failures))
            number += 1
            attempt = Attempt(
                str(uuid.uuid4()), task.task_id, task.run_id, number, AttemptState.RUNNING, self._fence.owner
            )
            try:
                async with self._capacity.taken(need):
                    return await self._attempt(task, attempt, work_of(number, interruptions))
            except Interrupted as error:
                interruptions += 1
                if interruptions >= _MAX_INTERRUPTIONS:
                    raise Interrupted(f"interrupted {interruptions} times: {error}") from error
                logger.warning("task %s of run %s: %s; again", task.path, task.run_id, error)
                last = None
                await asyncio.sleep(0.1 * interruptions)
            except TaskFailed as error:
                failures += 1
                last = error

    async def _attempt(self, task: Task, attempt: Attempt, work: Work) -> tuple[Values, Attempt]:
        """Makes one attempt; gives the outputs and the attempt as it is to be written with the task's end."""
        attempt = replace(attempt, started_at=now())
        await asyncio.to_thread(self._around.paths.clean_outputs, task)
        await self._db(self._tasks.begin_attempt, attempt, self._fence)

        async def started(process: Process) -> None:
            nonlocal attempt
            attempt = replace(attempt, pid=process.pid, pid_started=process.started)
            await self._db(self._tasks.save_attempt, attempt, self._fence)

        async def ended(state: AttemptState, message: str, code: int | None = None) -> None:
            last = replace(attempt, state=state, message=message, exit_code=code, finished_at=now())
            await self._db(self._tasks.save_attempt, last, self._fence)

        try:
            outputs = await self._worker.run(work, started)
        except TaskFailed as error:
            await ended(AttemptState.FAILED, str(error), error.exit_code)
            raise
        except Interrupted as error:
            await ended(AttemptState.INTERRUPTED, str(error))
            raise
        except asyncio.CancelledError:
            if self.terminated:
                await asyncio.shield(ended(AttemptState.CANCELED, "the run was terminated"))
            else:
                with contextlib.suppress(LostLease):
                    await asyncio.shield(ended(AttemptState.INTERRUPTED, "the service was stopped"))
            raise
        return outputs, replace(attempt, state=AttemptState.SUCCEEDED, exit_code=0, finished_at=now())

    def _environment(
        self, task: Task, label: str, container: Any, inputs: Values, context: Mapping[str, str]
    ) -> dict[str, str]:
        """Gives the variables of a container, those from secrets and config maps among them."""
        config = self._around.document.platform_config(label)
        names = self.names[task.path.rpartition("[")[0] if task.iteration >= 0 else task.path]
        found = variables(config, self._settings.root, self._around.run.namespace, names)
        for variable in container.env:
            found[variable.name] = text_of(resolve(variable.value, inputs.parameters, context))
        return found

    def _timeout(self, label: str) -> float:
        asked = float(self._around.document.platform_config(label).get("activeDeadlineSeconds", 0))
        limits = [limit for limit in (asked, self._settings.task_timeout_seconds) if limit > 0]
        return min(limits, default=0.0)


def _pause_seconds(policy: Any, failures: int) -> float:
    """Gives how long a task waits after so many failures."""
    first, longest = (
        duration.ToNanoseconds() / 1e9 for duration in (policy.backoff_duration, policy.backoff_max_duration)
    )
    grown: float = first * (policy.backoff_factor or 2) ** (failures - 1)
    return min(grown, longest or _LONGEST_PAUSE_SECONDS)


def attempt_mark(task_id: str, number: int) -> str:
    """Gives the mark by which the processes of an attempt are found (see `mlmesh_kit.launch.sweep`)."""
    return mark_of(f"{task_id}/{number}")
