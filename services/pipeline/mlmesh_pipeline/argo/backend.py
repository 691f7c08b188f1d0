"""Runs as Workflows: submitted, followed, terminated, removed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeVar

from mlmesh_kit.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from mlmesh_kit.kubernetes import Refused
from mlmesh_kit.objectstore import ObjectStore

from mlmesh_pipeline.argo.check import check_compilable
from mlmesh_pipeline.argo.cluster import Cluster
from mlmesh_pipeline.argo.logs import PodLogs, keep_log
from mlmesh_pipeline.argo.mirror import Mirror
from mlmesh_pipeline.argo.names import DNS_NAME, workflow_name
from mlmesh_pipeline.argo.nodes import Nodes
from mlmesh_pipeline.argo.options import Options
from mlmesh_pipeline.argo.state import RunState, run_uri
from mlmesh_pipeline.argo.templates import RUN_LABEL
from mlmesh_pipeline.argo.tree import Tree
from mlmesh_pipeline.argo.watching import WorkflowWatches
from mlmesh_pipeline.argo.workflow import compile_workflow
from mlmesh_pipeline.engine.driver import Stores
from mlmesh_pipeline.engine.worker import last_exception
from mlmesh_pipeline.ir.document import PipelineDocument, parse
from mlmesh_pipeline.resources import Problem, Run, RuntimeState
from mlmesh_pipeline.store.fence import Fence, LostLease

logger = logging.getLogger(__name__)
T = TypeVar("T")
Json = dict[str, Any]
_CANCELLED, _ABORTED, _INTERNAL, _NOT_READY = 1, 10, 13, 9  # google.rpc.Code
_LONGEST_PAUSE = 10.0
_CALLS = 16


class ArgoBackend:
    """Drives runs as Workflows of a cluster.

    Args:
        cluster: Where.
        options: For the Workflows.
        stores: The database.
        objects: Store of the state of runs.
        resync_seconds: How often a Workflow is looked at without a sign of it.
    """

    def __init__(
        self, cluster: Cluster, options: Options, stores: Stores, objects: ObjectStore, resync_seconds: float
    ) -> None:
        self._cluster = cluster
        self._options = options
        self._stores = stores
        self._objects = objects
        self._resync = resync_seconds
        self._watches = WorkflowWatches(cluster)
        # Not asyncio's own threads: while the cluster is away, calls to it may hold all that there are.
        self._calls = ThreadPoolExecutor(_CALLS, thread_name_prefix="cluster")
        self.logs = PodLogs(cluster, objects, options.state_root, options.namespace, stores.tasks)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Holds the connections to the cluster until left."""
        try:
            yield
        finally:
            self._watches.stop()
            self._calls.shutdown(wait=False, cancel_futures=True)

    def check(self, document: PipelineDocument, service_account: str) -> None:
        """Checks that a pipeline can be made a Workflow.

        Raises:
            InvalidArgument: Something in it is wrong.
            FailedPrecondition: Argo cannot do it.
        """
        if service_account and not DNS_NAME.fullmatch(service_account):
            raise InvalidArgument("must be the name of a service account of Kubernetes", field="service_account")
        check_compilable(document)

    def delete(self, run: Run) -> None:
        """Removes the Workflows of a run with their pods, and its state; its artifacts stay.

        Raises:
            Unavailable: The cluster or the store is away; nothing of the run is deleted then.
        """
        namespace = self._options.namespace or run.namespace
        for item in self._cluster.workflows(namespace, f"{RUN_LABEL}={run.run_id}")[0]:
            if _is_of(item, run):
                self._cluster.delete_workflow(namespace, item["metadata"]["name"])
        RunState(self._objects, run_uri(self._options.state_root, run.namespace, run.run_id), 1).delete()

    def driver(self, run: Run, fence: Fence, database: ThreadPoolExecutor) -> "ArgoDriver":
        """Gives the driver of a run."""
        return ArgoDriver(
            run,
            fence,
            self._stores,
            cluster=self._cluster,
            watches=self._watches,
            options=self._options,
            objects=self._objects,
            database=database,
            calls=self._calls,
            resync_seconds=self._resync,
        )


class ArgoDriver:
    """Drives one run: submits its Workflow, once, and follows it to its end.

    A driver that goes away leaves the Workflow as it is; the next finds it by its name, which follows from the run.

    Args:
        run: The run; its lease is ours.
        fence: The lease.
        stores: The database.
        cluster: Where the Workflow is.
        watches: Of the cluster.
        options: For the Workflow.
        objects: Store of the run's state.
        database: Executor for calls of the database.
        calls: Executor for calls of the cluster and of the object store.
        resync_seconds: How often the Workflow is looked at without a sign of it.
    """

    def __init__(
        self,
        run: Run,
        fence: Fence,
        stores: Stores,
        *,
        cluster: Cluster,
        watches: WorkflowWatches,
        options: Options,
        objects: ObjectStore,
        database: ThreadPoolExecutor,
        calls: ThreadPoolExecutor,
        resync_seconds: float,
    ) -> None:
        self.run = run
        self._fence = fence
        self._stores = stores
        self._cluster = cluster
        self._watches = watches
        self._options = options
        self._objects = objects
        self._database = database
        self._calls = calls
        self._resync = resync_seconds
        self._namespace = options.namespace or run.namespace
        self._canceled = run.state == RuntimeState.CANCELING
        self._wake: Callable[[], None] = lambda: None

    def cancel(self) -> None:
        """Ends the run, CANCELED, with all its pods."""
        if not self._canceled:
            self._canceled = True
            self._wake()

    async def drive(self) -> None:
        """Drives the run to its end; when cancelled from outside, leaves it to be driven on later.

        Raises:
            LostLease: Another service drives it now.
        """
        try:
            await self._drive()
        except (LostLease, Unavailable):  # without the database nothing can be written; the run goes on when it is back
            raise
        except Exception:
            logger.exception("run %s could not be driven", self.run.run_id)
            problem = Problem(_INTERNAL, "internal error of the pipeline service; see its log")
            await self._set_state(RuntimeState.FAILED, problem)

    async def _drive(self) -> None:
        self.run = await self._db(self._stores.runs.get, self.run.run_id)
        self._canceled = self._canceled or self.run.state == RuntimeState.CANCELING
        document = parse(await self._db(self._stores.runs.spec, self.run.spec_digest))
        history = (await self._db(self._stores.runs.history, [self.run.run_id]))[self.run.run_id]
        number = max(1, sum(event.state == RuntimeState.PENDING for event in history))  # each try begins so
        uri = run_uri(self._options.state_root, self.run.namespace, self.run.run_id)
        state = RunState(self._objects, uri, number)
        mirror = Mirror(
            self.run,
            Tree(document),
            state,
            tasks=self._stores.tasks,
            fence=self._fence,
            database=self._db,
            elsewhere=self._patiently,
            keep_log=partial(self._keep_log, state),
        )
        await mirror.load()
        name = workflow_name(self.run.pipeline_name, self.run.run_id, number)
        with self._watches.following(self._namespace, name) as changes:
            self._wake = changes.wake
            try:
                workflow = await self._submitted(name, document, number, state, mirror)
            except (Refused, PermissionDenied, NotFound) as error:
                await self._end(mirror, Problem(_NOT_READY, error.message), RuntimeState.FAILED)
                return
            if not self._canceled:
                await self._set_state(RuntimeState.RUNNING)
            asked = False
            while True:
                nodes = Nodes(workflow)
                if self._canceled and not asked and workflow is not None and not nodes.has_ended:
                    await self._patiently(self._terminate, name)
                    asked = True
                over = self._over(workflow, nodes)
                outcome = await mirror.sync(nodes, over, canceled=self._canceled)
                if over is not None:
                    break
                latest = await changes.next(self._resync)
                workflow = latest if latest is not None else await self._patiently(self._look, name)
        if self._canceled:
            await self._end(mirror, Problem(_CANCELLED, "the run was terminated"), RuntimeState.CANCELED)
        else:
            assert outcome is not None, "a Workflow has ended, and not all of its tasks"
            await self._set_state(outcome.state, outcome.problem)

    def _over(self, workflow: Json | None, nodes: Nodes) -> Problem | None:
        if workflow is None:
            return Problem(_ABORTED, "its Workflow is no longer in the cluster")
        if nodes.has_ended:
            return Problem(_ABORTED, nodes.message or f"the Workflow ended ({nodes.phase}) before it ran")
        return None

    async def _submitted(
        self, name: str, document: PipelineDocument, number: int, state: RunState, mirror: Mirror
    ) -> Json | None:
        """Gives the Workflow of the run's try: the one that there is, or else one that is made; None: it is gone."""
        workflow = await self._patiently(self._look, name)
        if workflow is not None or self._canceled or self.run.state == RuntimeState.RUNNING:
            return workflow
        await self._patiently(state.describe, self.run, document, asdict(self._options))
        await mirror.carry_over()
        manifest = compile_workflow(document, self.run, number, self._options)
        made = await self._patiently(self._cluster.create_workflow, manifest)
        return made if made is not None else await self._patiently(self._look, name)

    def _look(self, name: str) -> Json | None:
        try:
            found = self._cluster.workflow(self._namespace, name)
        except NotFound:
            return None
        if not _is_of(found, self.run):
            raise Refused(f"there is a Workflow {name!r} already, and it is not of this run")
        return found

    def _terminate(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self._cluster.terminate(self._namespace, name)

    async def _keep_log(self, state: RunState, pod: str, task_id: str, number: int) -> str:
        uri = state.log_uri(task_id, number)
        tail = await self._patiently(keep_log, self._cluster, state, self._namespace, pod, uri)
        return last_exception(tail.splitlines())

    async def _end(self, mirror: Mirror, problem: Problem, state: RuntimeState) -> None:
        if state == RuntimeState.CANCELED:
            await mirror.cancel(problem)
        await self._set_state(state, problem)

    async def _set_state(self, state: RuntimeState, problem: Problem | None = None) -> None:
        if self.run.state != state:
            state = await self._db(self._stores.runs.set_state, self.run.run_id, state, problem, self._fence)
            self._canceled = self._canceled or state == RuntimeState.CANCELING
            self.run = replace(self.run, state=state, problem=problem)

    async def _db(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._database, partial(function, *arguments))

    async def _patiently(self, function: Callable[..., T], *arguments: Any) -> T:
        """Asks the cluster or the object store, again while it is away."""
        pause = 0.5
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._calls, partial(function, *arguments))
            except Unavailable as error:
                logger.warning("run %s: %s; again in %gs", self.run.run_id, error.message, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _is_of(workflow: Json, run: Run) -> bool:
    return bool((workflow["metadata"].get("labels") or {}).get(RUN_LABEL) == run.run_id)
