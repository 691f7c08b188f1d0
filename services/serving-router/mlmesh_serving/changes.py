"""Changes of what is kept and of what is in memory, which must not part."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Changes:
    """Makes one change after the other, on one event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    async def make(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Makes a change alone, and to its end even if the client goes away."""

        async def alone() -> T:
            async with self._lock:
                return await change()

        task = asyncio.create_task(alone())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)
