"""A folder of an object store, or of this machine: JSON lines, an event a line, in files of bounded size and age."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable

from mlmesh_kit.errors import ServiceError, Unavailable
from mlmesh_kit.objectstore import open_store
from mlmesh_kit.objectstore.base import below

from mlmesh_serving.observers.cloudevent import CloudEvent
from mlmesh_serving.observers.queue import BoundedQueue
from mlmesh_serving.observers.sinks.base import ATTEMPTS, Outcome, wait_seconds

_ENVELOPE_BYTES = 512  # of an event beside its data, about


class StoreSink:
    """Collects events, and stores them as one object when they are enough or the first has waited long enough.

    An object is there whole or not at all; events that have not been stored when the process is killed are lost. Names
    begin with the time, so that they sort. In a folder of this machine the oldest objects are deleted beyond
    `keep_bytes`; a bucket has rules of its own for that.

    Args:
        root: URI that the store is opened at: nothing outside it is written.
        folder: URI of the folder below it.
        told: Is told what became of each event.
        max_items: Events that may wait.
        max_bytes: Bytes of their data.
        file_bytes: Size at which an object is stored.
        file_seconds: Age at which it is stored.
        keep_bytes: Of all objects together; 0: no limit.
    """

    def __init__(
        self,
        root: str,
        folder: str,
        told: Callable[[Outcome], None],
        max_items: int = 10_000,
        max_bytes: int = 32 << 20,
        file_bytes: int = 8 << 20,
        file_seconds: float = 10.0,
        keep_bytes: int = 1 << 30,
    ) -> None:
        self._root = root
        self._folder = folder
        self._told = told
        self._file_bytes = file_bytes
        self._file_seconds = file_seconds
        self._keep_bytes = keep_bytes if root.startswith("file:") else 0
        self._queue: BoundedQueue[CloudEvent] = BoundedQueue(max_items, max_bytes)
        self._since = 0.0
        self._in_hand = 0
        self._more = asyncio.Event()
        self._storing = asyncio.Lock()

    @property
    def is_filling(self) -> bool:
        """See Sink."""
        return self._queue.is_filling

    def offer(self, event: CloudEvent) -> bool:
        """See Sink."""
        taken = self._queue.put(event, len(event.data) + _ENVELOPE_BYTES)
        if taken:
            if len(self._queue) == 1:
                self._since = time.monotonic()
            self._more.set()
        return taken

    async def run(self) -> None:
        """See Sink."""
        while True:
            await self._more.wait()
            left = self._since + self._file_seconds - time.monotonic()
            if left > 0 and self._queue.bytes < self._file_bytes:
                await asyncio.sleep(min(left, 0.2))
                continue
            await self._store()
            if not len(self._queue):
                self._more.clear()

    async def drain(self, seconds: float) -> int:
        """See Sink."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self._queue):
                    await self._store()
                async with self._storing:  # what `run` has taken already
                    pass
        return len(self._queue) + self._in_hand

    async def _store(self) -> None:
        async with self._storing:
            events = self._queue.take(1 << 30, self._file_bytes)
            self._since = time.monotonic()
            if not events:
                return
            self._in_hand = len(events)
            outcome = await self._put(b"".join(event.to_json() + b"\n" for event in events))
            self._in_hand = 0
            for _ in events:
                self._told(outcome)

    async def _put(self, data: bytes) -> Outcome:
        seconds, fraction = divmod(time.time_ns(), 10**9)
        stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{fraction // 1000:06d}"
        uri = below(self._folder, f"{stamp}-{uuid.uuid4().hex[:8]}.jsonl")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await asyncio.to_thread(self._write, data, uri)
            except Unavailable:
                if attempt < ATTEMPTS:
                    await asyncio.sleep(wait_seconds(attempt))
            except (ServiceError, OSError):
                return Outcome.REJECTED
            else:
                return Outcome.SENT
        return Outcome.FAILED

    def _write(self, data: bytes, uri: str) -> None:
        store = open_store(self._root)
        store.put_bytes(data, uri)
        if not self._keep_bytes:
            return
        total = 0
        for info in sorted(store.list(self._folder), key=lambda info: info.uri, reverse=True):
            total += info.size
            if total > self._keep_bytes and info.uri != uri:
                store.delete(info.uri)
