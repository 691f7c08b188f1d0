"""Drives one run from where the database says it is to its end.

A run is a tree of tasks, each known by its path (`train`, `exit-handler-1/for-loop-2[3]/add`). The driver walks the
tree; what has ended already is read back and not done again, which is all that going on after a crash takes.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from graphlib import TopologicalSorter
from typing import Any, TypeVar

from mlmesh_kit.errors import Unavailable
from mlmesh_kit.files import remove_tree
from mlmesh_kit.launch import Process, mark_of, sweep

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine.capacity import Capacity
from mlmesh_pipeline.engine.cluster_files import NotThere, variables
from mlmesh_pipeline.engine.fingerprint import fingerprint
from mlmesh_pipeline.engine.inputs import (
    NOT_RUN,
    NoValue,
    Outcome,
    name_beside,
    problem_of_input,
    resolve_inputs,
)
from mlmesh_pipeline.engine.paths import RunPaths, file_path, uri_of
from mlmesh_pipeline.engine.steps import (
    blocked_words,
    condition_holds,
    context_of,
    importer_metadata,
    importer_uri,
    join,
    loop_items,
    outcome_of_dag,
    outcome_of_loop,
    text_of,
    with_item,
)
from mlmesh_pipeline.engine.worker import Interrupted, TaskFailed, Work, Worker
from mlmesh_pipeline.ir.check import upstream_of
from mlmesh_pipeline.ir.cluster_names import Source
from mlmesh_pipeline.ir.container_resources import BadResources, resources_of
from mlmesh_pipeline.ir.document import PipelineDocument, parse
from mlmesh_pipeline.ir.placeholders import UnknownPlaceholder, resolve
from mlmesh_pipeline.ir.proto import TriggerStrategy
from mlmesh_pipeline.ir.runnable import code_of, has_workspace
from mlmesh_pipeline.resources import (
    Artifact,
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
from mlmesh_pipeline.store import CacheStore, RunStore, TaskStore
from mlmesh_pipeline.store.fence import Fence, LostLease

logger = logging.getLogger(__name__)
T = TypeVar("T")

_ABORTED, _INTERNAL, _CANCELLED, _UNKNOWN, _NOT_READY, _INVALID = 10, 13, 1, 2, 9, 3  # google.rpc.Code
_MAX_INTERRUPTIONS = 10
_SUSPICIOUS_INTERRUPTIONS = 3  # it may be its own doing
_COMPLETED = TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED


@dataclass(frozen=True, slots=True)
class Stores:
    """What a driver reads and writes."""

    runs: RunStore
    tasks: TaskStore
    cache: CacheStore


@dataclass(frozen=True, slots=True)
class Scope:
    """A DAG that is being walked: its component, its inputs, and the task that it is."""

    component: Any
    inputs: Values
    path: str
    task_id: str


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
        self._known: dict[str, Task] = {}
        self._numbers: dict[str, int] = {}
        self._names: dict[str, Callable[[Source], Any]] = {}
        self._document: PipelineDocument | None = None
        self._has_workspace = False
        self._canceled: bool = False
        self._walk: asyncio.Task[Outcome] | None = None

    def cancel(self) -> None:
        """Ends the run, CANCELED, with all its processes."""
        self._canceled = True
        if self._walk is not None:
            self._walk.cancel()

    async def drive(self) -> None:
        """Drives the run to its end; when cancelled from outside, leaves it to be driven on later.

        Raises:
            LostLease: Another service drives it now; our processes have been ended.
        """
        try:
            await self._begin()
            if self._canceled or self.run.state == RuntimeState.CANCELING:
                await self._end_canceled()
                return
            await self._set_state(RuntimeState.RUNNING)
            self._walk = asyncio.create_task(self._root(), name=f"run {self.run.run_id}")
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
            await self._close(RuntimeState.CANCELED, problem)
            await self._end(RuntimeState.FAILED, problem)
            return
        await self._close(RuntimeState.SKIPPED, Problem(0, "not run: its loop has fewer items than before the retry"))
        await self._end(RuntimeState.SUCCEEDED if outcome.succeeded else outcome.state, outcome.problem)

    async def _begin(self) -> None:
        content = await self._db(self._stores.runs.spec, self.run.spec_digest)
        self._document = parse(content)
        self._has_workspace = has_workspace(self._document)
        if self._has_workspace:
            self._paths.workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        tasks = await self._db(self._stores.tasks.of_run, self.run.run_id)
        self._known = {task.path: task for task in tasks}
        for attempt in await self._db(self._stores.tasks.attempts_of, self.run.run_id):
            self._numbers[attempt.task_id] = max(self._numbers.get(attempt.task_id, 0), attempt.number)
            if attempt.state == AttemptState.RUNNING:
                await asyncio.to_thread(self._clear, attempt)
        await self._db(self._stores.tasks.interrupt, self.run.run_id, self._fence)
        self.run = await self._db(self._stores.runs.get, self.run.run_id)

    def _clear(self, attempt: Attempt) -> None:
        """Ends what an attempt of a service that died has left: its processes, then its scratch folder."""
        sweep(attempt.pid, attempt.pid_started, _mark(attempt.task_id, attempt.number))
        remove_tree(self._paths.attempt(attempt.task_id, attempt.number))

    async def _stop_walking(self) -> None:
        if self._walk is not None:
            self._walk.cancel()
            with contextlib.suppress(BaseException):
                await asyncio.shield(self._walk)

    async def _end_canceled(self) -> None:
        problem = Problem(_CANCELLED, "the run was terminated")
        await self._close(RuntimeState.CANCELED, problem)
        await self._end(RuntimeState.CANCELED, problem)

    async def _close(self, state: RuntimeState, problem: Problem) -> None:
        """Gives a final state to the tasks that have none."""
        for task in list(self._known.values()):
            if not task.state.is_final:
                await self._save(replace(task, state=state, problem=problem, finished_at=now()))

    async def _end(self, state: RuntimeState, problem: Problem | None) -> None:
        if state == RuntimeState.SUCCEEDED and self._has_workspace:  # else a retry may want it
            await asyncio.to_thread(remove_tree, self._paths.workspace)
        await self._set_state(state, problem)

    async def _set_state(self, state: RuntimeState, problem: Problem | None = None) -> None:
        if self.run.state != state:
            await self._db(self._stores.runs.set_state, self.run.run_id, state, problem, self._fence)
            self.run = replace(self.run, state=state, problem=problem)

    # -- the walk ------------------------------------------------------------------------------------------------

    async def _root(self) -> Outcome:
        assert self._document is not None
        root = self._document.spec.root
        return await self._dag(Scope(root, Values(self.run.parameters), "", ""))

    async def _dag(self, scope: Scope) -> Outcome:
        """Runs the tasks of a DAG, each as soon as those that it waits for have ended."""
        tasks = scope.component.dag.tasks
        waits_for = {name: upstream_of(task) for name, task in tasks.items()}
        order = list(TopologicalSorter(waits_for).static_order())
        await self._add([self._new(scope, name, tasks[name]) for name in order])
        running: dict[str, asyncio.Task[Outcome]] = {}
        async with asyncio.TaskGroup() as group:
            for name in order:
                upstream = {other: running[other] for other in waits_for[name]}
                running[name] = group.create_task(self._after(scope, name, tasks[name], upstream))
        outcomes = {name: task.result() for name, task in running.items()}
        return outcome_of_dag(scope.component, outcomes)

    async def _after(self, scope: Scope, name: str, spec: Any, running: Mapping[str, asyncio.Task[Outcome]]) -> Outcome:
        task = self._known[join(scope.path, name)]
        if task.state.is_final:
            return _outcome_of(task)
        upstream = {other: await outcome for other, outcome in running.items()}
        blocked = [other for other, outcome in upstream.items() if not outcome.succeeded]
        if blocked and spec.trigger_policy.strategy != _COMPLETED:
            return await self._skip(task, f"not run: {blocked_words(blocked, upstream)}")
        assert self._document is not None
        component = self._document.component(spec.component_ref.name)
        try:
            inputs = resolve_inputs(
                spec,
                component,
                scope.inputs,
                upstream,
                context=self._context(task),
                run_parameters=self.run.parameters,
            )
            holds = condition_holds(spec, inputs)
        except NoValue as error:
            return await self._fail(task, problem_of_input(error))
        if not holds:
            return await self._skip(task, "not run: its condition does not hold")
        self._names[task.path] = partial(name_beside, scope.inputs.parameters, upstream)
        if spec.WhichOneof("iterator"):
            return await self._loop(task, spec, component, inputs)
        return await self._execute(task, spec, component, inputs)

    async def _execute(self, task: Task, spec: Any, component: Any, inputs: Values) -> Outcome:
        if component.WhichOneof("implementation") == "dag":
            return await self._nested(task, component, inputs)
        assert self._document is not None
        executor = self._document.executor(component.executor_label)
        if executor.WhichOneof("spec") == "importer":
            return await self._import(task, component, executor.importer, inputs)
        return await self._container(task, spec, component, executor.container, inputs)

    async def _nested(self, task: Task, component: Any, inputs: Values) -> Outcome:
        task = await self._started(task, inputs)
        outcome = await self._dag(Scope(component, inputs, task.path, task.task_id))
        return await self._finish(task, outcome)

    async def _loop(self, task: Task, spec: Any, component: Any, inputs: Values) -> Outcome:
        iterator = getattr(spec, spec.WhichOneof("iterator"))
        try:
            items = loop_items(spec, inputs, self._context(task), self._settings.max_loop_items)
        except NoValue as error:
            return await self._fail(task, problem_of_input(error))
        task = await self._started(task, inputs)
        new = []
        for number in range(len(items)):
            path = f"{task.path}[{number}]"
            kind = TaskKind.ITERATION if component.WhichOneof("implementation") == "dag" else TaskKind.CONTAINER
            made = self._make(
                path,
                f"{task.name}[{number}]",
                kind,
                parent_id=task.task_id,
                display_name=f"{task.display_name}[{number}]",
            )
            new.append(replace(made, iteration=number))
        await self._add(new)
        limit = asyncio.Semaphore(spec.iterator_policy.parallelism_limit or len(items) or 1)

        async def iteration(number: int, item: Any) -> Outcome:
            child = self._known[f"{task.path}[{number}]"]
            if child.state.is_final:
                return _outcome_of(child)
            async with limit:
                return await self._execute(child, spec, component, with_item(inputs, iterator.item_input, item))

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(iteration(number, item)) for number, item in enumerate(items)]
        outcomes = [one.result() for one in running]
        return await self._finish(task, outcome_of_loop(component, outcomes))

    # -- leaves --------------------------------------------------------------------------------------------------

    async def _import(self, task: Task, component: Any, importer: Any, inputs: Values) -> Outcome:
        task = await self._started(task, inputs)
        uri = importer_uri(importer, inputs)
        if not uri:
            return await self._fail(task, Problem(3, "the importer has no URI"))
        uri = uri_of(uri)
        path = file_path(uri)
        if importer.download_to_workspace and path is None:
            return await self._fail(task, Problem(_NOT_READY, f"{uri} cannot be downloaded into the workspace here"))
        if path is not None and not path.exists():
            return await self._fail(task, Problem(5, f"there is nothing at {uri}"))
        context = self._context(task)
        try:
            metadata = importer_metadata(importer, inputs, context)
        except NoValue as error:
            return await self._fail(task, problem_of_input(error))
        name, spec = next(iter(component.output_definitions.artifacts.items()))
        digest, etag = await self._worker.staging.identify(uri)
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
        return await self._finish(task, Outcome(RuntimeState.SUCCEEDED, Values({}, {name: [artifact]})))

    async def _container(self, task: Task, spec: Any, component: Any, container: Any, inputs: Values) -> Outcome:
        mark = fingerprint(self.run, component, container, inputs, spec.caching_options.cache_key)
        task = await self._started(replace(task, fingerprint=mark), inputs)
        cached = spec.caching_options.enable_cache
        if cached and not self.run.rerun_of:
            found = await self._db(self._stores.cache.find, mark, self.run.namespace)
            if found is not None and await self._worker.staging.is_there(found[1]):
                task = replace(task, cached_from=found[0])
                return await self._finish(task, Outcome(RuntimeState.SKIPPED, found[1]))
        context = self._context(task)
        try:
            environment = self._environment(task, component.executor_label, container, inputs, context)
            resources = resources_of(container.resources, inputs.parameters, context)
            need = self._capacity.need(resources)
        except (UnknownPlaceholder, NotThere) as error:
            return await self._fail(task, Problem(_NOT_READY, str(error)))
        except BadResources as error:
            return await self._fail(task, Problem(_NOT_READY, f"container.resources: {error}"))
        policy = spec.retry_policy
        delay, longest = (
            policy.backoff_duration.ToNanoseconds() / 1e9,
            policy.backoff_max_duration.ToNanoseconds() / 1e9,
        )
        failures = interruptions = 0
        while True:
            number = self._numbers.get(task.task_id, 0) + 1
            self._numbers[task.task_id] = number
            work = Work(
                run_id=self.run.run_id,
                task_name=task.name,
                component=component,
                code=code_of(container),
                inputs=inputs,
                environment=environment,
                context=context,
                scratch=self._paths.attempt(task.task_id, number),
                log_path=self._paths.log(task.task_id, number),
                output_uri=self._paths.outputs(task),
                timeout_seconds=self._timeout(component.executor_label),
                resources=resources,
                mark=_mark(task.task_id, number),
                number=number,
                alone=interruptions >= _SUSPICIOUS_INTERRUPTIONS,
            )
            attempt = Attempt(
                str(uuid.uuid4()), task.task_id, task.run_id, number, AttemptState.RUNNING, self._fence.owner
            )
            try:
                async with self._capacity.taken(need):
                    outputs, attempt = await self._attempt(task, attempt, work)
            except Interrupted as error:
                interruptions += 1
                if interruptions < _MAX_INTERRUPTIONS:
                    logger.warning("task %s of run %s: %s; again", task.path, self.run.run_id, error)
                    await asyncio.sleep(0.1 * interruptions)
                    continue
                return await self._fail(task, Problem(_ABORTED, f"interrupted {interruptions} times: {error}"))
            except TaskFailed as error:
                failures += 1
                if failures > policy.max_retry_count:
                    times = f" (attempt {failures} of {failures})" if failures > 1 else ""
                    return await self._fail(task, Problem(_UNKNOWN, f"{error}{times}"))
                await asyncio.sleep(min(delay * (policy.backoff_factor or 2) ** (failures - 1), longest or 3600))
                continue
            return await self._finish(
                task, Outcome(RuntimeState.SUCCEEDED, outputs), attempt, cache_for=self.run.namespace if cached else ""
            )

    async def _attempt(self, task: Task, attempt: Attempt, work: Work) -> tuple[Values, Attempt]:
        """Makes one attempt; gives the outputs and the attempt as it is to be written with the task's end."""
        attempt = replace(attempt, started_at=now())
        await asyncio.to_thread(self._paths.clean_outputs, task)
        await self._db(self._stores.tasks.begin_attempt, attempt, self._fence)

        async def started(process: Process) -> None:
            nonlocal attempt
            attempt = replace(attempt, pid=process.pid, pid_started=process.started)
            await self._db(self._stores.tasks.save_attempt, attempt, self._fence)

        async def ended(state: AttemptState, message: str, code: int | None = None) -> None:
            last = replace(attempt, state=state, message=message, exit_code=code, finished_at=now())
            await self._db(self._stores.tasks.save_attempt, last, self._fence)

        try:
            outputs = await self._worker.run(work, started)
        except TaskFailed as error:
            await ended(AttemptState.FAILED, str(error), error.exit_code)
            raise
        except Interrupted as error:
            await ended(AttemptState.INTERRUPTED, str(error))
            raise
        except asyncio.CancelledError:
            if self._canceled:
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
        assert self._document is not None
        config = self._document.platform_config(label)
        names = self._names[task.path.rpartition("[")[0] if task.iteration >= 0 else task.path]
        found = variables(config, self._settings.root, self.run.namespace, names)
        for variable in container.env:
            found[variable.name] = text_of(resolve(variable.value, inputs.parameters, context))
        return found

    def _timeout(self, label: str) -> float:
        assert self._document is not None
        asked = float(self._document.platform_config(label).get("activeDeadlineSeconds", 0))
        limits = [limit for limit in (asked, self._settings.task_timeout_seconds) if limit > 0]
        return min(limits, default=0.0)

    # -- records -------------------------------------------------------------------------------------------------

    def _new(self, scope: Scope, name: str, spec: Any) -> Task:
        assert self._document is not None
        component = self._document.component(spec.component_ref.name)
        if spec.WhichOneof("iterator"):
            kind = TaskKind.LOOP
        elif component.WhichOneof("implementation") == "dag":
            kind = TaskKind.DAG
        elif self._document.executor(component.executor_label).WhichOneof("spec") == "importer":
            kind = TaskKind.IMPORTER
        else:
            kind = TaskKind.CONTAINER
        upstream = tuple(sorted(upstream_of(spec)))
        return self._make(
            join(scope.path, name),
            name,
            kind,
            parent_id=scope.task_id,
            display_name=spec.task_info.name or name,
            upstream=upstream,
        )

    def _make(
        self, path: str, name: str, kind: TaskKind, *, parent_id: str, display_name: str, upstream: tuple[str, ...] = ()
    ) -> Task:
        return Task(
            task_id=str(uuid.uuid4()),
            run_id=self.run.run_id,
            path=path,
            name=name,
            display_name=display_name,
            kind=kind,
            parent_id=parent_id,
            created_at=now(),
            upstream=upstream,
        )

    async def _add(self, tasks: list[Task]) -> None:
        new = [task for task in tasks if task.path not in self._known]
        if new:
            await self._db(self._stores.tasks.add, new, self._fence)
            self._known |= {task.path: task for task in new}

    async def _started(self, task: Task, inputs: Values) -> Task:
        task = replace(task, state=RuntimeState.RUNNING, inputs=inputs, started_at=task.started_at or now())
        await self._save(task)
        return task

    async def _save(self, task: Task) -> None:
        await self._db(self._stores.tasks.save, task, self._fence)
        self._known[task.path] = task

    async def _finish(
        self, task: Task, outcome: Outcome, attempt: Attempt | None = None, *, cache_for: str = ""
    ) -> Outcome:
        task = replace(task, state=outcome.state, outputs=outcome.outputs, problem=outcome.problem, finished_at=now())
        await self._db(partial(self._stores.tasks.finish, task, attempt, self._fence, cache_for=cache_for))
        self._known[task.path] = task
        return outcome

    async def _skip(self, task: Task, why: str) -> Outcome:
        await self._save(replace(task, state=RuntimeState.SKIPPED, problem=Problem(0, why), finished_at=now()))
        return NOT_RUN

    async def _fail(self, task: Task, problem: Problem) -> Outcome:
        return await self._finish(task, Outcome(RuntimeState.FAILED, problem=problem))

    def _context(self, task: Task) -> dict[str, str]:
        workspace = str(self._paths.workspace) if self._has_workspace else ""
        return context_of(self.run, task.name, task.task_id, self._paths.root_uri, workspace)

    async def _db(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._database, partial(function, *arguments))


def _mark(task_id: str, number: int) -> str:
    return mark_of(f"{task_id}/{number}")


def _holds_a(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kind) is not None
    return isinstance(error, kind)


def _outcome_of(task: Task) -> Outcome:
    has_run = task.state != RuntimeState.SKIPPED or bool(task.cached_from)
    return Outcome(task.state, task.outputs, task.problem if has_run else None, has_run=has_run)
