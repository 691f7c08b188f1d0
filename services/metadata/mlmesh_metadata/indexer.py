"""Indexes in the background what is too much for one search: a large database that is opened for the first time."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator

from mlmesh_kit.errors import ServiceError
from mlmesh_kit.lease import LeaseStore

from mlmesh_metadata.searching import BATCH, Search

logger = logging.getLogger(__name__)
_LEASE = "index"
_LEASE_SECONDS = 30.0
_TURN_SECONDS = 5.0


class Indexer:
    """Brings the index up to date after the start, and when a search has left it behind.

    Of several replicas one at a time works. Each batch is a transaction of its own, and between two the others have
    the database for as long as the batch took.

    Args:
        search: Whose index.
        leases: Keeps the replicas apart.
    """

    def __init__(self, search: Search, leases: LeaseStore) -> None:
        self.search = search
        self._leases = leases
        self._owner = uuid.uuid4().hex
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Says that there is something to index; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._awake.set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Indexes until left."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._run(), name="indexer")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with contextlib.suppress(ServiceError):
                await asyncio.to_thread(self._leases.release_all, self._owner)

    async def _run(self) -> None:
        while True:
            self._awake.clear()
            try:
                await self._index()
            except ServiceError as error:
                logger.warning("the search index could not be brought up to date: %s", error.message)
            except Exception:
                logger.exception("bringing the search index up to date")
            await self._awake.wait()

    async def _index(self) -> None:
        assert self._loop is not None
        while True:
            if not await asyncio.to_thread(self._leases.claim, _LEASE, self._owner, _LEASE_SECONDS):
                await asyncio.sleep(_TURN_SECONDS)  # another replica is at it
                continue
            began = self._loop.time()
            if await asyncio.to_thread(self.search.refresh, BATCH):
                break
            await asyncio.sleep(self._loop.time() - began)
        await asyncio.to_thread(self._leases.release, _LEASE, self._owner)
