"""A backend that answers, fails or holds as a test tells it."""

import asyncio
from collections import deque

from mlmesh_serving.backend import Door, WireAnswer, WireRequest


class FakeBackend:
    """Answers for one revision with its number.

    Args:
        revision: Its number.
        holds: Answer only when `release` is called.
    """

    def __init__(self, revision: int, *, holds: bool = False) -> None:
        self.revision = revision
        self.holds = holds
        self.asked: list[WireRequest] = []
        self.refuses: Exception | None = None
        self.closed = False
        self.ready = 1
        self._held: deque[asyncio.Future[WireAnswer]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def backend(self) -> "FakeBackend":
        return self

    @property
    def in_flight(self) -> int:
        return len(self._held)

    def submit(self, request: WireRequest) -> "asyncio.Future[WireAnswer]":
        assert not self.closed, f"revision {self.revision} is asked after it was closed"
        if self.refuses is not None:
            raise self.refuses
        self.asked.append(request)
        future: asyncio.Future[WireAnswer] = asyncio.get_running_loop().create_future()
        if self.holds:
            self._held.append(future)
            self._idle.clear()
        else:
            future.set_result(WireAnswer(str(self.revision).encode()))
        return future

    def release(self, error: Exception | None = None) -> None:
        """Answers all that is held."""
        while self._held:
            future = self._held.popleft()
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(WireAnswer(str(self.revision).encode()))
        self._idle.set()

    async def scale(self, replicas: int) -> None:
        self.ready = replicas

    async def close(self, grace_seconds: float) -> None:
        self.closed = True
        await asyncio.wait_for(self._idle.wait(), grace_seconds)


def a_request(**headers: str) -> WireRequest:
    """Makes a request with headers; `_` in their names is `-`."""
    return WireRequest(Door.REST_V2, "iris", b"{}", headers={k.replace("_", "-"): v for k, v in headers.items()})
