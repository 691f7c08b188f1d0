"""A revision of a model that can be asked: what answers for it, and what is known of it."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_serving.backend import Backend
from mlmesh_serving.chain_files import chain_files
from mlmesh_serving.datatypes import Limits
from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.protection.front import Front, Fronts
from mlmesh_serving.remote.backend import RemoteBackend
from mlmesh_serving.remote.stages import RemoteStages, local_part, remotes_of
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.store import StoredRevision
from mlmesh_serving.workers.host import WorkerHost
from mlmesh_serving.workers.plan import Batching, Loaded, Plan
from mlmesh_serving.workers.pool import PoolLimits, WorkerPool

T = TypeVar("T")

WARM_MODULES: dict[str, Sequence[str]] = {"sklearn": ("mlmesh_serving.workers.warm_sklearn",)}
"""By model format: what is imported in advance where its workers are forked, for it takes longer than all the rest."""


@dataclass(slots=True)
class Revision:
    """A revision that has been loaded.

    Attributes:
        number: From 1.
        backend: Answers for it.
        loaded: What it says of itself.
        files: Keeps what was downloaded for it, for workers that are started later.
        openai: The predictor, where it is elsewhere and has OpenAI's routes.
        front: Stands before its workers; None: it has none.
        explainer: Explains its answers; None: nothing does.
        leave: Is called when it has ended: nobody looks at its predictions any more.
    """

    number: int
    backend: Backend
    loaded: Loaded
    files: ExitStack = field(default_factory=ExitStack)
    openai: RemoteBackend | None = None
    front: Front | None = None
    explainer: Backend | None = None
    leave: Callable[[], None] | None = None

    def set_reachable(self, reachable: bool) -> None:
        """See `traffic.rollout.LoadedRevision`."""
        if self.front is not None:
            self.front.set_reachable(reachable)

    async def close(self, grace_seconds: float) -> None:
        """Answers what is in flight, and ends."""
        if self.explainer is not None:
            await self.explainer.close(grace_seconds)
        await self.backend.close(grace_seconds)
        if self.leave is not None:
            self.leave()
        await asyncio.to_thread(self.files.close)


class RevisionLoader:
    """Loads revisions into worker processes.

    Args:
        host: Starts the workers.
        storage: Where models come from.
        limits: Of requests.
        batching: How they are joined where a manifest does not say it.
        pool_limits: What the workers of a model may take.
        fronts: Stand before the workers, and scale them.
        stages: Those that are elsewhere.
    """

    def __init__(
        self,
        host: WorkerHost,
        storage: ModelStorage,
        limits: Limits,
        batching: Batching,
        pool_limits: PoolLimits,
        fronts: Fronts,
        stages: RemoteStages | None = None,
    ) -> None:
        self._host = host
        self._storage = storage
        self._limits = limits
        self._batching = batching
        self._pool_limits = pool_limits
        self._fronts = fronts
        self._stages = stages

    async def load(self, stored: StoredRevision, spec: InferenceServiceSpec) -> Revision:
        """Loads what runs here, and connects it with what is elsewhere.

        Raises:
            FailedPrecondition, InvalidArgument: It cannot be loaded.
            Unavailable: Not now.
        """
        local = local_part(spec)
        if local is spec:
            return await self._load(stored, spec)
        assert self._stages is not None, "without stages elsewhere no manifest with one is taken"
        revision = None if local is None else await self._load(stored, local)
        try:
            opened = await self._stages.open(spec, str(stored.number), None if revision is None else revision.backend)
        except BaseException:
            if revision is not None:
                await revision.close(0)
            raise
        whole = Loaded("remote", list(spec.inputs), list(spec.outputs))
        if revision is None:
            return Revision(stored.number, opened.backend, whole, openai=opened.predictor)
        roles = {role for role, _ in remotes_of(spec)}
        loaded = replace(
            revision.loaded,
            inputs=whole.inputs if "preprocessor" in roles else revision.loaded.inputs,
            outputs=whole.outputs if "postprocessor" in roles else revision.loaded.outputs,
        )
        return replace(revision, backend=opened.backend, loaded=loaded)

    async def _load(self, stored: StoredRevision, spec: InferenceServiceSpec) -> Revision:
        """Brings a revision's files here, starts its workers and waits until they answer.

        Raises:
            FailedPrecondition, InvalidArgument: It cannot be loaded.
            Unavailable: Not now.
        """
        modules = WARM_MODULES.get(spec.predictor.format, ())
        await self._host.warm_up(modules)  # it imports while the files are brought
        files = ExitStack()
        try:
            found = await _finishing(asyncio.to_thread(files.enter_context, chain_files(spec, self._storage)))
            plan = Plan(spec, found, str(stored.number), self._limits, self._joined(spec))
            pool = WorkerPool(
                self._host,
                plan,
                modules=modules,
                limits=self._pool_limits,
                env=spec.predictor.env,
                model=f"{stored.namespace}.{stored.name}",
            )
            front = self._fronts.put((stored.namespace, stored.name, stored.number), pool, spec)
            try:
                await front.start()
                if pool.loaded is None:
                    raise FailedPrecondition("no worker has loaded the model")
            except BaseException:
                await front.close(0)
                raise
        except BaseException:
            await asyncio.to_thread(files.close)
            raise
        return Revision(stored.number, front, replace(pool.loaded, digest=found.predictor.digest), files, front=front)

    def _joined(self, spec: InferenceServiceSpec) -> Batching:
        batcher = spec.batcher
        return Batching(batcher.max_batch_size, batcher.max_latency_seconds) if batcher else self._batching


async def _finishing(work: Coroutine[Any, Any, T]) -> T:
    """Waits for work in a thread to its end even when cancelled: what it leaves is to be cleared away."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
