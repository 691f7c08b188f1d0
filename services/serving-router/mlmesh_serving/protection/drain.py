"""A backend that is being replaced: it ends what it has, and takes nothing more."""

import asyncio
import contextlib

from mlmesh_kit.errors import Unavailable

from mlmesh_serving.backend import Backend, WireRequest
from mlmesh_serving.protection.futures import Future


class Draining:
    """A Backend before another, which can be told to come to an end without harm to anybody.

    Args:
        inner: Answers.
        name: Of what is behind, for messages.
    """

    def __init__(self, inner: Backend, name: str) -> None:
        self._inner = inner
        self._name = name
        self._count = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def draining(self) -> bool:
        """Whether it takes no more requests."""
        return self._draining

    @property
    def in_flight(self) -> int:
        """See `Backend.in_flight`."""
        return self._inner.in_flight

    @property
    def ready(self) -> int:
        """See `Backend.ready`; 0 while it drains, so that nobody chooses it."""
        return 0 if self._draining else self._inner.ready

    def submit(self, request: WireRequest) -> Future:
        """Hands a request on.

        Raises:
            Unavailable: It drains; another try finds what replaces it.
        """
        if self._draining:
            raise Unavailable(f"{self._name} is being replaced", retry_after_seconds=0.1)
        future = self._inner.submit(request)
        self._count += 1
        self._empty.clear()
        future.add_done_callback(self._ended)
        return future

    async def scale(self, replicas: int) -> None:
        """See `Backend.scale`; of no effect while it drains."""
        if not self._draining:
            await self._inner.scale(replicas)

    async def close(self, grace_seconds: float) -> None:
        """Takes no more requests, waits for those in flight, at most so long, and closes what is behind it."""
        self._draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_seconds
        with contextlib.suppress(TimeoutError):  # what is left is ended by the backend's own closing
            async with asyncio.timeout_at(end):
                await self._empty.wait()
        await self._inner.close(max(0.0, end - loop.time()))

    def _ended(self, _: Future) -> None:
        self._count -= 1
        if not self._count:
            self._empty.set()
