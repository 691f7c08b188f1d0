"""Sends and fetches of objects: in threads, a few at a time, tried again while the store is away."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from mlmesh_kit.errors import Unavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

Check = Callable[[], None]
"""Is to be called now and then by what runs in a thread; raises Stopped when nobody waits for it any more."""

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 15.0
_GRACE_SECONDS = 1.0
_AT_ONCE = 256


class Stopped(Exception):
    """Nobody waits for the transfer any more."""


class StoreAway(Exception):
    """The store could not be reached for as long as there was patience; the message says so, for people."""


class Transfers:
    """Runs transfers.

    The threads are of its own, not of the loop's pool: a store that does not answer must not keep the rest of the
    service waiting, nor its end.

    Args:
        at_a_time: How many run; more wait.
        patience_seconds: How long one is tried again while the store cannot be reached.
    """

    def __init__(self, at_a_time: int, patience_seconds: float) -> None:
        self._slots = asyncio.Semaphore(at_a_time)
        self._patience = patience_seconds

    async def run(self, job: Callable[[Check], T], told: Callable[[str], None], *, patient: bool = True) -> T:
        """Runs a transfer; raises what it raises.

        Args:
            job: Runs in a thread, again from its beginning after each Unavailable.
            told: Is told in words when the store cannot be reached, once.
            patient: Whether to try again at all.

        Raises:
            StoreAway: The store could not be reached.
        """
        loop = asyncio.get_running_loop()
        wait, since = _FIRST_WAIT, 0.0
        while True:
            try:
                async with self._slots:
                    return await in_thread(job)
            except Unavailable as error:
                if not since:
                    since = loop.time()
                    told(f"{error.message}; trying again for {self._patience:g} s")
                left = since + self._patience - loop.time()
                if left <= 0 or not patient:
                    raise StoreAway(f"{error.message} (tried for {loop.time() - since:.0f} s)") from error
                await asyncio.sleep(min(wait, left))
                wait = min(wait * 2, _LONGEST_WAIT)


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """Awaits all; the first that fails ends the others, and its exception is raised as it is."""
    results: list[T] = []
    batch: list[Awaitable[T]] = []

    async def settle() -> None:
        running = [asyncio.ensure_future(work) for work in batch]
        batch.clear()
        try:
            results.extend(await asyncio.gather(*running))
        except BaseException:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            raise

    for work in works:
        batch.append(work)
        if len(batch) == _AT_ONCE:
            await settle()
    await settle()
    return results


async def in_thread(job: Callable[[Check], T]) -> T:
    """Runs something that blocks in a thread that does not outlive the process; gives or raises what it does."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = job(check)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="transfer", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        future.add_done_callback(asyncio.Future.exception)  # nobody asks for it any more
        await asyncio.wait({future}, timeout=_GRACE_SECONDS)  # it cleans up behind itself
        raise
