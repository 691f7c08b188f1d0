"""A revision of a model that can be asked: what answers for it, and what is known of it."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_serving.backend import Backend
from mlmesh_serving.chain_files import chain_files
from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.store import StoredService
from mlmesh_serving.tensor import Limits
from mlmesh_serving.workers.host import WorkerHost
from mlmesh_serving.workers.plan import Batching, Loaded, Plan
from mlmesh_serving.workers.pool import PoolLimits, WorkerPool

T = TypeVar("T")

WARM_MODULES: dict[str, Sequence[str]] = {"sklearn": ("joblib", "sklearn.linear_model", "sklearn.pipeline")}
"""By model format: what is imported in advance where its workers are forked, for it takes longer than all the rest."""


@dataclass(slots=True)
class Revision:
    """A revision that has been loaded.

    Attributes:
        number: From 1.
        backend: Answers for it.
        loaded: What it says of itself.
        files: Keeps what was downloaded for it, for workers that are started later.
    """

    number: int
    backend: Backend
    loaded: Loaded
    files: ExitStack = field(default_factory=ExitStack)

    async def close(self, grace_seconds: float) -> None:
        """Answers what is in flight, and ends."""
        await self.backend.close(grace_seconds)
        await asyncio.to_thread(self.files.close)


class RevisionLoader:
    """Loads revisions into worker processes.

    Args:
        host: Starts the workers.
        storage: Where models come from.
        limits: Of requests.
        batching: How they are joined.
        pool_limits: What the workers of a model may take.
        replicas: Workers of each model.
    """

    def __init__(
        self,
        host: WorkerHost,
        storage: ModelStorage,
        limits: Limits,
        batching: Batching,
        pool_limits: PoolLimits,
        replicas: int = 1,
    ) -> None:
        self._host = host
        self._storage = storage
        self._limits = limits
        self._batching = batching
        self._pool_limits = pool_limits
        self._replicas = replicas

    async def load(self, stored: StoredService, spec: InferenceServiceSpec) -> Revision:
        """Brings a revision's files here, starts its workers and waits until they answer.

        Raises:
            FailedPrecondition, InvalidArgument: It cannot be loaded.
            Unavailable: Not now.
        """
        files = ExitStack()
        try:
            found = await _finishing(asyncio.to_thread(files.enter_context, chain_files(spec, self._storage)))
            plan = Plan(spec, found, str(stored.revision), self._limits, self._batching)
            pool = WorkerPool(
                self._host,
                plan,
                modules=WARM_MODULES.get(spec.predictor.format, ()),
                limits=self._pool_limits,
                model=f"{stored.namespace}.{stored.name}",
            )
            try:
                await pool.scale(self._replicas)
                if pool.loaded is None:
                    raise FailedPrecondition("no worker has loaded the model")
            except BaseException:
                await pool.close(0)
                raise
        except BaseException:
            await asyncio.to_thread(files.close)
            raise
        return Revision(stored.revision, pool, pool.loaded, files)


async def _finishing(work: Coroutine[Any, Any, T]) -> T:
    """Waits for work in a thread to its end even when cancelled: what it leaves is to be cleared away."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
