"""Brings artifacts from an object store to paths of this machine; the same content once for all who want it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from mlmesh_kit.objectstore import below

from mlmesh_pipeline.artifact_stores import ArtifactStores
from mlmesh_pipeline.engine import remote
from mlmesh_pipeline.engine.input_cache import InputCache
from mlmesh_pipeline.engine.remote import Found, Unusable, key_of
from mlmesh_pipeline.engine.transfers import Transfers, together
from mlmesh_pipeline.engine.trees import Tree
from mlmesh_pipeline.resources import Artifact

T = TypeVar("T")
Told = Callable[[str], None]

_BUSY_SECONDS = 0.1


class InputFetcher:
    """Fetches artifacts.

    Args:
        stores: Where they are.
        transfers: Runs the fetches.
        cache: Keeps what was fetched.
        max_bytes: Largest artifact.
    """

    def __init__(self, stores: ArtifactStores, transfers: Transfers, cache: InputCache, max_bytes: int) -> None:
        self._stores = stores
        self._transfers = transfers
        self._cache = cache
        self._max_bytes = max_bytes
        self._filling: dict[str, asyncio.Task[None]] = {}
        self._wanted: dict[str, int] = {}

    async def close(self) -> None:
        """Ends what is on its way."""
        running = list(self._filling.values())
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def fetch(self, artifact: Artifact, target: Path, told: Told) -> None:
        """Brings an artifact to a path, as a file or a folder.

        Args:
            artifact: What; its digest, if it has one, is what it must have.
            target: Where, in a folder that there is.
            told: Is told when the store cannot be reached.

        Raises:
            Unusable, BadTree: What is in the store is not what was recorded, or too large.
            StoreAway: The store could not be reached for too long.
            ServiceError: It refused, or has nothing there.
            OSError: There is no room, or the like.
        """
        found = None
        if artifact.digest:
            key = key_of(artifact.uri, artifact.digest)
        else:
            found = await self._look(artifact, told)
            key = found.key
        self._wanted[key] = self._wanted.get(key, 0) + 1
        try:
            while not await asyncio.to_thread(self._cache.place, key, target):
                await self._fill(key, artifact, found, told)
        finally:
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._wanted[key]

    async def _look(self, artifact: Artifact, told: Told) -> Found:
        store = self._stores.of(artifact.uri)
        return await self._transfers.run(partial(remote.look, store, artifact), told)

    async def _fill(self, key: str, artifact: Artifact, found: Found | None, told: Told) -> None:
        """Fetches what a key means; whoever wants the same waits for the same fetch."""
        running = self._filling.get(key)
        if running is None:
            running = asyncio.create_task(self._fill_now(key, artifact, found, told), name=f"fetch {artifact.uri}")
            self._filling[key] = running
            running.add_done_callback(lambda task: self._filled(key, task))
        await asyncio.shield(running)

    def _filled(self, key: str, task: asyncio.Task[None]) -> None:
        del self._filling[key]
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; that nobody does is no news

    async def _fill_now(self, key: str, artifact: Artifact, found: Found | None, told: Told) -> None:
        store = self._stores.of(artifact.uri)
        async with _in_threads(self._cache.making(key)) as content:
            if content is None:  # another service on this machine is at it, or has just done it
                await asyncio.sleep(_BUSY_SECONDS)
                return
            if found is None:
                found = await self._look(artifact, told)
            if found.size > self._max_bytes:
                raise Unusable(f"it has {found.size} bytes, at most {self._max_bytes} are fetched")
            if found.tree is None:
                await self._transfers.run(partial(remote.get, store, artifact.uri, content, found.digest), told)
            else:
                await asyncio.to_thread(_make_folders, content, found.tree)
                gets = (
                    partial(remote.get, store, below(artifact.uri, one.path), content / one.path, one.sha256)
                    for one in found.tree.files
                )
                await together(self._transfers.run(get, told) for get in gets)
        await asyncio.to_thread(self._cache.clean, set(self._wanted))


def _make_folders(content: Path, tree: Tree) -> None:
    content.mkdir(mode=0o700)
    for name in tree.folders:
        (content / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    for member in tree.files:
        (content / member.path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextlib.asynccontextmanager
async def _in_threads(manager: contextlib.AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enters and leaves a context manager that blocks."""
    given = await asyncio.to_thread(manager.__enter__)
    try:
        yield given
    except BaseException:
        if not await asyncio.shield(asyncio.to_thread(manager.__exit__, *sys.exc_info())):
            raise
    else:
        await asyncio.shield(asyncio.to_thread(manager.__exit__, None, None, None))
