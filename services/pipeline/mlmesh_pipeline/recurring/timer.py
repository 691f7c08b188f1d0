"""Waits for the next time that a recurring run fires."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from mlmesh_kit.errors import ServiceError

logger = logging.getLogger(__name__)


class Timer:
    """Calls what fires recurring runs when it is time; each replica has one, and the database says who was first.

    Args:
        scan_seconds: After so long it looks again, for what other replicas have changed.
    """

    def __init__(self, scan_seconds: float) -> None:
        self._scan_seconds = scan_seconds
        self._awake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.fire: Callable[[], int] = lambda: 0
        """Fires what is due; says when to call it again, in seconds since the epoch."""

    def wake(self) -> None:
        """Says that a time may have changed, or a run has ended; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._awake.set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs until left."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._run(), name="recurring runs")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._awake.clear()
            wait = self._scan_seconds
            try:
                next_at = await asyncio.to_thread(self.fire)
                if next_at > time.time():
                    wait = min(wait, next_at - time.time())
            except ServiceError as error:
                logger.warning("recurring runs could not be fired: %s", error.message)
            except Exception:
                logger.exception("firing recurring runs")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait)):
                    await self._awake.wait()
