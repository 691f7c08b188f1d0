"""A Backend whose predictions are looked at."""

import asyncio

from mlmesh_serving.backend import Backend, WireAnswer, WireRequest
from mlmesh_serving.observers.observers import Tap


class ObservedBackend:
    """Offers each prediction of a backend to a tap when it is answered.

    Args:
        backend: Answers.
        tap: Is offered what was asked and answered.
    """

    def __init__(self, backend: Backend, tap: Tap) -> None:
        self._backend = backend
        self._tap = tap

    @property
    def in_flight(self) -> int:
        """See Backend."""
        return self._backend.in_flight

    @property
    def ready(self) -> int:
        """See Backend."""
        return self._backend.ready

    def submit(self, request: WireRequest) -> "asyncio.Future[WireAnswer]":
        """See Backend."""
        future = self._backend.submit(request)

        def answered(done: "asyncio.Future[WireAnswer]") -> None:
            failed = done.cancelled() or done.exception() is not None
            self._tap.offer(request, None if failed else done.result())

        future.add_done_callback(answered)
        return future

    async def scale(self, replicas: int) -> None:
        """See Backend."""
        await self._backend.scale(replicas)

    async def close(self, grace_seconds: float) -> None:
        """See Backend."""
        await self._backend.close(grace_seconds)
