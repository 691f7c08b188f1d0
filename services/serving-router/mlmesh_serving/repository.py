"""The models that are served: loads what the store says, keeps the old revision until the new one is ready."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from mlmesh_kit.errors import FailedPrecondition, NotFound, ServiceError, Unavailable

from mlmesh_serving.chain_files import check_storage
from mlmesh_serving.manifest import InferenceServiceSpec, parse_manifest
from mlmesh_serving.predictors import FORMATS
from mlmesh_serving.revision import Revision
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.store import ServingStore, StoredService

logger = logging.getLogger(__name__)

Key = tuple[str, str]
T = TypeVar("T")

_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


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
        stored: The newest revision.
        state: Of the newest revision.
        message: Why it failed.
        since: When the state began, seconds since the epoch.
        revision: The one that answers; None: none does.
    """

    stored: StoredService
    state: State = State.LOADING
    message: str = ""
    since: float = field(default_factory=time.time)
    revision: Revision | None = None
    loading: "asyncio.Task[None] | None" = field(default=None, repr=False)

    @property
    def ready_revision(self) -> int:
        """Number of the revision that answers, 0 for none."""
        return 0 if self.revision is None else self.revision.number

    def enter(self, state: State, message: str = "") -> None:
        """Changes the state."""
        self.state, self.message, self.since = state, message, time.time()


class ModelRepository:
    """All InferenceServices: what is asked for (in the store) and what is loaded (in memory).

    Args:
        store: Keeps them.
        storage: Where models come from.
        load: Loads a revision.
        grace_seconds: What requests in flight get when their revision goes.
    """

    def __init__(
        self,
        store: ServingStore,
        storage: ModelStorage,
        load: Callable[[StoredService, InferenceServiceSpec], Coroutine[Any, Any, Revision]],
        grace_seconds: float = 10.0,
    ) -> None:
        self._store = store
        self._storage = storage
        self._load = load
        self._grace_seconds = grace_seconds
        self._served: dict[Key, Served] = {}
        self._lock = asyncio.Lock()
        self._changes: set[asyncio.Task[Any]] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads what the store holds, in the background, and stops on leaving."""
        for stored in await asyncio.to_thread(self._store.list):
            self._begin(stored)
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
        spec = parse_manifest(manifest, frozenset(FORMATS))
        check_storage(spec, self._storage)
        return spec

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> Served:
        """Adds an InferenceService and begins to load it.

        Raises:
            AlreadyExists: There is one of this name.
        """
        spec = self.parse(manifest)

        async def change() -> Served:
            return self._begin(await asyncio.to_thread(self._store.create, namespace, spec.name, manifest))

        return await self._whole(change)

    async def update(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> Served:
        """Makes a new revision; the old one answers until the new one is ready.

        Raises:
            NotFound: There is none of this name.
        """
        self.parse(manifest)

        async def change() -> Served:
            return self._begin(await asyncio.to_thread(self._store.update, namespace, name, manifest))

        return await self._whole(change)

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

        await self._whole(change)

    async def load(self, namespace: str, name: str) -> None:
        """Loads the newest revision (again) and waits for it.

        Raises:
            NotFound: There is none of this name.
            FailedPrecondition: It cannot be loaded.
        """

        async def change() -> Served:
            stored = await asyncio.to_thread(self._store.set_unloaded, namespace, name, False)
            return self._begin(stored, again=True)

        served = await self._whole(change)
        while served.state is State.LOADING and served.loading is not None:
            await asyncio.wait([served.loading])
            if self._served.get((namespace, name)) is not served:
                raise NotFound(message=f"model {name!r} was deleted while it was being loaded")
        if served.state is not State.READY:
            raise FailedPrecondition(
                f"model {name!r} could not be loaded: {served.message or 'it was unloaded meanwhile'}"
            )

    async def unload(self, namespace: str, name: str) -> None:
        """Unloads a model; it stays unloaded until it is loaded or changed.

        Raises:
            NotFound: There is none of this name.
        """

        async def change() -> None:
            self._begin(await asyncio.to_thread(self._store.set_unloaded, namespace, name, True))

        await self._whole(change)

    def get(self, namespace: str, name: str) -> Served:
        """Gives what is known of a model.

        Raises:
            NotFound: There is none of this name.
        """
        served = self._served.get((namespace, name))
        if served is None:
            raise NotFound(message=f"model {name!r} not found")
        return served

    def ready(self, namespace: str, name: str, version: str = "") -> Revision:
        """Gives the revision that answers.

        Raises:
            NotFound: There is no such model or version.
            Unavailable: It is not loaded (yet).
        """
        served = self.get(namespace, name)
        if served.revision is None:
            reason = f": {served.message}" if served.message else ""
            raise Unavailable(
                f"model {name!r} is not ready ({served.state.value.lower()}{reason})", retry_after_seconds=1
            )
        if version and version != str(served.ready_revision):
            raise NotFound(message=f"model {name!r} has no version {version!r}; {served.ready_revision} is served")
        return served.revision

    def list(self) -> list[Served]:
        """Gives all models."""
        return [self._served[key] for key in sorted(self._served)]

    def all_ready(self) -> bool:
        """Tells whether every model that should be loaded answers."""
        return all(s.revision is not None or s.state in {State.UNLOADED, State.FAILED} for s in self._served.values())

    async def _whole(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Makes a change alone, and to its end even if the client goes away: store and memory must not part."""

        async def alone() -> T:
            async with self._lock:
                return await change()

        task = asyncio.create_task(alone())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    def _begin(self, stored: StoredService, *, again: bool = False) -> Served:
        key = (stored.namespace, stored.name)
        served = self._served.get(key)
        if served is None:
            served = self._served[key] = Served(stored)
        elif not again and served.stored == stored and served.state is not State.FAILED:
            return served
        served.stored = stored
        if served.loading is not None:
            self._end_loading(served)
        if stored.unloaded:
            self._retire(served)
            served.enter(State.UNLOADED)
            return served
        served.enter(State.LOADING)
        served.loading = asyncio.create_task(self._bring_up(served, stored), name=f"load {stored.name}")
        return served

    async def _bring_up(self, served: Served, stored: StoredService) -> None:
        started = time.monotonic()
        try:
            spec = self.parse(stored.manifest)
            revision = await self._patiently(served, spec)
        except ServiceError as error:
            served.enter(State.FAILED, error.message)
        except Exception:
            logger.exception("loading %s failed", stored.name)
            served.enter(State.FAILED, "an unexpected error; the service's log has it")
        else:
            self._retire(served)
            served.revision = revision
            served.enter(State.READY)
            seconds = round(time.monotonic() - started, 3)
            logger.info("loaded", extra={"model": stored.name, "revision": stored.revision, "seconds": seconds})

    def _stop(self, served: Served) -> None:
        if served.loading is not None:
            self._end_loading(served)
        self._retire(served)

    def _end_loading(self, served: Served) -> None:
        """Ends what is being loaded, and waits for it in the background: it may have to end a worker."""
        if served.loading is not None:
            served.loading.cancel()
            self._in_background(_quietly(served.loading))
            served.loading = None

    def _retire(self, served: Served) -> None:
        """Lets the revision that answered answer what it has, and ends it."""
        if served.revision is not None:
            self._in_background(served.revision.close(self._grace_seconds))
            served.revision = None

    def _in_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _patiently(self, served: Served, spec: InferenceServiceSpec) -> Revision:
        """Loads, and again while the store it comes from cannot be reached."""
        for seconds in _RETRY_SECONDS:
            try:
                return await self._load(served.stored, spec)
            except Unavailable as error:
                served.message = error.message
                await asyncio.sleep(seconds)
        return await self._load(served.stored, spec)


async def _quietly(task: "asyncio.Task[None]") -> None:
    await asyncio.wait([task])
