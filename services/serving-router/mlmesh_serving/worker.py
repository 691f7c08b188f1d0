"""Threads that compute, so that the event loop never does.

Handing work to a thread and its result back costs more than a small model takes. Here all results that are there when
the loop wakes are delivered in one go: under load a wake-up serves many requests.
"""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...], contextvars.Context]


class Workers:
    """A fixed number of threads that serve one event loop.

    Args:
        threads: How many.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, Exception | None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_waking = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts the threads for the running loop; on leaving they finish what they have and end."""
        self._loop = asyncio.get_running_loop()
        threads = [threading.Thread(target=self._work, name=f"infer-{n}", daemon=True) for n in range(self._threads)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for _ in threads:
                self._jobs.put(None)

    def run(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Runs a function in a thread, in the context of the caller."""
        assert self._loop is not None, "the workers run within running()"
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((future, function, args, contextvars.copy_context()))
        return future

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            future, function, args, context = job
            result: Any = None
            error: Exception | None = None
            if not future.cancelled():  # the client may have gone while this waited
                try:
                    result = context.run(function, *args)
                except Exception as raised:
                    error = raised
            self._done.append((future, result, error))
            del job, future, function, args, context, result, error  # an idle thread keeps no tensors alive
            # One wake-up is enough for all that is done until the loop comes round to it.
            if not self._is_waking:
                self._is_waking = True
                self._wake()

    def _wake(self) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False  # before the results are read: what comes later wakes the loop again
        while self._done:
            future, result, error = self._done.popleft()
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
