"""The models that are served: what the store says, and a rollout of each in memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, NotFound, Unavailable

from mlmesh_serving.chain_files import check_storage
from mlmesh_serving.changes import Changes
from mlmesh_serving.manifest import Feature, InferenceServiceSpec, parse_manifest
from mlmesh_serving.predictors import FORMAT_NAMES
from mlmesh_serving.protection.settings import parse_protection
from mlmesh_serving.remote.stages import RemoteStages
from mlmesh_serving.revision import Revision
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.store import ServingStore, StoredRevision, StoredService
from mlmesh_serving.traffic.plan import RolloutState
from mlmesh_serving.traffic.rollout import RevisionState, RevisionStatus, Rollout
from mlmesh_serving.traffic.router import Router

Key = tuple[str, str]

SERVED = frozenset(
    {
        Feature.BATCHER,
        Feature.CANARY,
        Feature.CONCURRENCY,
        Feature.DETECTORS,
        Feature.ENV,
        Feature.EXPLAINER,
        Feature.LOGGER,
        Feature.REMOTE,
        Feature.TIMEOUT,
        Feature.TRANSFORMER,
    }
)
"""What this process serves beyond models that answer."""


class State(Enum):
    """Of the newest revision."""

    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"
    UNLOADED = "UNLOADED"


@dataclass(slots=True)
class Served:
    """A model in memory.

    Attributes:
        stored: As it is kept.
        rollout: Its revisions; None: it is unloaded.
        since: When it was unloaded, seconds since the epoch.
    """

    stored: StoredService
    rollout: Rollout[Revision] | None = None
    since: float = 0.0

    @property
    def newest(self) -> RevisionStatus:
        """How the newest revision is."""
        return self.rollout.status(self.stored.revision) if self.rollout else RevisionStatus(since=self.since)

    @property
    def state(self) -> State:
        """Of the newest revision; one that no request goes to is as ready as those that they go to."""
        if self.rollout is None:
            return State.UNLOADED
        if self.newest.state is RevisionState.RETIRED:
            return State.READY if self.is_answering else State.LOADING
        return State[self.newest.state.name]

    @property
    def message(self) -> str:
        """Why it failed."""
        return self.newest.message

    @property
    def is_answering(self) -> bool:
        """Tells whether any revision answers."""
        return self.rollout is not None and self.rollout.router.split is not None

    @property
    def ready_revision(self) -> int:
        """Number of the revision that answers most requests, 0 for none."""
        return self.rollout.leading if self.rollout else 0

    def router(self) -> Router:
        """Gives what requests are handed to.

        Raises:
            Unavailable: It is unloaded.
        """
        if self.rollout is None:
            raise Unavailable(f"model {self.stored.name!r} is not ready: unloaded", retry_after_seconds=1)
        return self.rollout.router


class ModelRepository:
    """All InferenceServices: what is asked for (in the store) and what is loaded (in memory).

    Args:
        store: Keeps them.
        storage: Where models come from.
        load: Loads a revision.
        stages: Checks stages that are elsewhere.
        check: Refuses a manifest for what is beside its predictions.
        grace_seconds: What requests in flight get when their revision goes.
        forget: Told of a model that is gone: `namespace.name`.
    """

    def __init__(
        self,
        store: ServingStore,
        storage: ModelStorage,
        load: Callable[[StoredRevision, InferenceServiceSpec], Coroutine[Any, Any, Revision]],
        stages: RemoteStages,
        grace_seconds: float = 10.0,
        forget: Callable[[str], None] = lambda _: None,
        check: Callable[[InferenceServiceSpec], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._storage = storage
        self._load = load
        self._grace_seconds = grace_seconds
        self._forget = forget
        self._stages = stages
        self._check = check
        self._served: dict[Key, Served] = {}
        self._changes = Changes()
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads what the store holds, in the background, and stops on leaving."""
        for stored in await asyncio.to_thread(self._store.list):
            self._apply(stored)
        try:
            yield
        finally:
            for served in self._served.values():
                self._stop(served)
            if self._closing:
                await asyncio.wait(self._closing)

    def parse(self, manifest: Mapping[str, Any]) -> InferenceServiceSpec:
        """Checks a manifest at the door.

        Raises:
            InvalidArgument, FailedPrecondition: See `parse_manifest` and `ModelStorage.check`.
        """
        spec = parse_manifest(manifest, FORMAT_NAMES, SERVED)
        check_storage(spec, self._storage)
        parse_protection(spec.annotations, "manifest.metadata.annotations")
        self._stages.check(spec)
        self._check(spec)
        return spec

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> Served:
        """Adds an InferenceService and begins to load it.

        Raises:
            AlreadyExists: There is one of this name.
        """
        spec = self.parse(manifest)
        return await self._changed(lambda: self._store.create(namespace, spec.name, manifest))

    async def update(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> Served:
        """Takes a new manifest; requests go where they went until what it asks for is ready.

        Raises:
            NotFound: There is none of this name.
        """
        self.parse(manifest)
        return await self._changed(lambda: self._store.update(namespace, name, manifest))

    async def change(self, write: Callable[[], StoredService]) -> tuple[StoredService, Rollout[Revision] | None]:
        """Changes the store, then memory; see `Rollouts.change`."""
        served = await self._changed(write)
        return served.stored, served.rollout

    async def delete(self, namespace: str, name: str) -> None:
        """Removes an InferenceService and unloads it.

        Raises:
            NotFound: There is none of this name.
        """

        async def change() -> None:
            await asyncio.to_thread(self._store.delete, namespace, name)
            served = self._served.pop((namespace, name), None)
            if served is not None:
                self._stop(served)
            self._forget(f"{namespace}.{name}")

        await self._changes.make(change)

    async def load(self, namespace: str, name: str) -> None:
        """Loads the newest revision (again) and waits for it.

        Raises:
            NotFound: There is none of this name.
            FailedPrecondition: It cannot be loaded.
        """
        served = await self._changed(lambda: self._store.set_unloaded(namespace, name, False))
        rollout = served.rollout
        if rollout is not None:
            rollout.reload(served.stored.revision)
            try:
                await rollout.settled()
            except FailedPrecondition as error:
                self._still(namespace, name, served)
                raise FailedPrecondition(f"model {name!r} could not be loaded: {error.message}") from error
        self._still(namespace, name, served)
        if served.state is not State.READY:
            raise FailedPrecondition(
                f"model {name!r} could not be loaded: {served.message or 'it was unloaded meanwhile'}"
            )

    async def unload(self, namespace: str, name: str) -> None:
        """Unloads a model; it stays unloaded until it is loaded or changed.

        Raises:
            NotFound: There is none of this name.
        """
        await self._changed(lambda: self._store.set_unloaded(namespace, name, True))

    def get(self, namespace: str, name: str) -> Served:
        """Gives what is known of a model.

        Raises:
            NotFound: There is none of this name.
        """
        served = self._served.get((namespace, name))
        if served is None:
            raise NotFound(message=f"model {name!r} not found")
        return served

    def rollout(self, namespace: str, name: str) -> Rollout[Revision] | None:
        """Gives the revisions of a model in memory; None: it is unloaded.

        Raises:
            NotFound: There is none of this name.
        """
        return self.get(namespace, name).rollout

    def ready(self, namespace: str, name: str, version: str = "") -> Revision:
        """Gives a revision that answers; without a version the one that answers most requests.

        Raises:
            NotFound: There is no such model or version.
            Unavailable: It is not loaded (yet).
        """
        served = self.get(namespace, name)
        served.router()
        assert served.rollout is not None
        return served.rollout.resolve(version)

    def list(self) -> list[Served]:
        """Gives all models."""
        return [self._served[key] for key in sorted(self._served)]

    def all_ready(self) -> bool:
        """Tells whether every model that should be loaded answers."""
        return all(s.is_answering or s.state in {State.UNLOADED, State.FAILED} for s in self._served.values())

    def _still(self, namespace: str, name: str, served: Served) -> None:
        if self._served.get((namespace, name)) is not served:
            raise NotFound(message=f"model {name!r} was deleted while it was being loaded")

    async def _changed(self, write: Callable[[], StoredService]) -> Served:
        async def change() -> Served:
            return self._apply(await asyncio.to_thread(write))

        return await self._changes.make(change)

    def _apply(self, stored: StoredService) -> Served:
        key = (stored.namespace, stored.name)
        served = self._served.setdefault(key, Served(stored))
        served.stored = stored
        if stored.unloaded:
            self._stop(served)
            return served
        if served.rollout is None:
            served.rollout = self._rollout(stored)
        served.rollout.apply(stored.revision, stored.traffic, stored.canary_percent, again=True)
        return served

    def _rollout(self, stored: StoredService) -> Rollout[Revision]:
        namespace, name = stored.namespace, stored.name

        async def load(number: int) -> Revision:
            revision = await asyncio.to_thread(self._store.revision, namespace, name, number)
            return await self._load(revision, self.parse(revision.manifest))

        async def record(state: RolloutState) -> None:
            await asyncio.to_thread(self._store.record_rollout, namespace, name, state)

        return Rollout(name, stored.rollout, load, record, self._grace_seconds)

    def _stop(self, served: Served) -> None:
        rollout, served.rollout, served.since = served.rollout, None, time.time()
        if rollout is not None:
            task = asyncio.create_task(rollout.close(self._grace_seconds))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
