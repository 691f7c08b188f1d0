"""An HTTP endpoint that takes CloudEvents, one a request, in the binary content mode, as KServe's logger sends them."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from mlmesh_kit.errors import ServiceError

from mlmesh_serving.observers.cloudevent import CloudEvent
from mlmesh_serving.observers.queue import BoundedQueue
from mlmesh_serving.observers.sinks.base import ATTEMPTS, Outcome, wait_seconds
from mlmesh_serving.remote.hosts import AllowedHosts

_SENDERS = 4
_AGAIN = frozenset({408, 425, 429})


class _Resolver(AbstractResolver):
    """Gives those addresses of a name that may be connected to."""

    def __init__(self, hosts: AllowedHosts) -> None:
        self._hosts = hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See AbstractResolver."""
        try:
            addresses = await self._hosts.resolve(host, port)
        except ServiceError as error:
            raise OSError(error.message) from error
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """See AbstractResolver."""


class HttpSink:
    """Sends events, several at a time, and again when that fails.

    No redirect is followed: where it leads to was never allowed. A name's address is checked when it is connected to.

    Args:
        url: Where to.
        hosts: That may be connected to.
        told: Is told what became of each event.
        max_items: Events that may wait.
        max_bytes: Bytes of their data.
        timeout_seconds: Longest time of an attempt.
    """

    def __init__(
        self,
        url: str,
        hosts: AllowedHosts,
        told: Callable[[Outcome], None],
        max_items: int = 1000,
        max_bytes: int = 16 << 20,
        timeout_seconds: float = 5.0,
    ) -> None:
        self._url = url
        self._hosts = hosts
        self._told = told
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._queue: BoundedQueue[CloudEvent] = BoundedQueue(max_items, max_bytes)
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sending = 0

    @property
    def is_filling(self) -> bool:
        """See Sink."""
        return self._queue.is_filling

    def offer(self, event: CloudEvent) -> bool:
        """See Sink."""
        taken = self._queue.put(event, len(event.data))
        if taken:
            self._idle.clear()
            self._more.set()
        return taken

    async def run(self) -> None:
        """See Sink."""
        connector = aiohttp.TCPConnector(resolver=_Resolver(self._hosts), limit=_SENDERS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=self._timeout, auto_decompress=False) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(_SENDERS):
                group.create_task(self._send_all(session))

    async def drain(self, seconds: float) -> int:
        """See Sink."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return len(self._queue) + self._sending

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while True:
            for event in self._queue.take(1, 0):
                self._sending += 1
                try:
                    self._told(await self._send(session, event))
                finally:
                    self._sending -= 1
            if len(self._queue):
                continue
            if not self._sending:
                self._idle.set()
            self._more.clear()
            await self._more.wait()

    async def _send(self, session: aiohttp.ClientSession, event: CloudEvent) -> Outcome:
        headers = event.http_headers()
        for attempt in range(1, ATTEMPTS + 1):
            asked: float | None = None
            try:
                async with session.post(self._url, data=event.data, headers=headers, allow_redirects=False) as answer:
                    if 200 <= answer.status < 300:
                        return Outcome.SENT
                    if answer.status < 500 and answer.status not in _AGAIN:
                        return Outcome.REJECTED
                    after = answer.headers.get("Retry-After", "")
                    asked = float(after) if after.isascii() and after.isdigit() else None
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            if attempt < ATTEMPTS:
                await asyncio.sleep(wait_seconds(attempt, asked))
        return Outcome.FAILED
