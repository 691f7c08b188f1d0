"""Keeps one worker of a pool alive: a new one follows each that ends, and each that has grown too large."""

import asyncio
import contextlib
import logging
import random
from typing import Final, Protocol

from mlmesh_kit.errors import ServiceError

from mlmesh_serving.workers.worker import Worker

logger = logging.getLogger(__name__)

STABLE_SECONDS: Final = 10.0
"""A worker that has lived so long ended by chance: its successor comes at once."""
SOON_SECONDS: Final = 2.0
"""Requests wait for a successor that comes within this."""
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 30.0
_RETIRE_SECONDS: Final = 2.0
_DRAIN_SECONDS: Final = 3600.0


class Group(Protocol):
    """Whose worker it is: the pool."""

    model: str

    async def spawn(self) -> Worker:
        """Starts a worker."""

    def join(self, worker: Worker) -> None:
        """It takes requests from now on."""

    def leave(self, worker: Worker) -> None:
        """It gets no more requests."""

    def expects(self, supervisor: "Supervisor", *, soon: bool) -> None:
        """Says whether another worker of this supervisor is to be expected soon."""


class Supervisor:
    """Looks after one worker and its successors.

    Args:
        group: Whose it is.
        worker: The first; it has loaded its model.
    """

    def __init__(self, group: Group, worker: Worker) -> None:
        self._group = group
        self._retiring: set[asyncio.Task[None]] = set()
        self.worker: Worker | None = worker
        group.join(worker)
        self._task = asyncio.create_task(self._run(worker), name=f"supervise {group.model}")

    async def stop(self, grace_seconds: float) -> None:
        """Ends the worker when it has answered what it has, or after the grace."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._group.expects(self, soon=False)
        worker, self.worker = self.worker, None
        if worker is not None:
            self._group.leave(worker)
            await _drain(worker, grace_seconds)
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=grace_seconds)

    async def _run(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            since = loop.time()
            await worker.changed.wait()
            if worker.gone:
                self.worker = None
                failures = 0 if loop.time() - since > STABLE_SECONDS else failures + 1
                successor = await self._succeed(worker, failures)
            else:
                logger.warning("a worker has grown too large", extra=self._about(worker))
                successor = await self._start(0)
            self.worker = successor
            self._group.join(successor)
            self._group.expects(self, soon=False)
            if not worker.gone:
                self._group.leave(worker)
                self._retire(worker)
            worker = successor

    async def _succeed(self, worker: Worker, failures: int) -> Worker:
        burial = asyncio.create_task(self._bury(worker), name="bury worker")
        self._retiring.add(burial)
        burial.add_done_callback(self._retiring.discard)
        return await self._start(max(0, failures - 1))

    async def _start(self, failures: int) -> Worker:
        while True:
            delay = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** (failures - 1)) if failures else 0.0
            self._group.expects(self, soon=delay <= SOON_SECONDS)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                return await self._group.spawn()
            except ServiceError as error:
                why = {"model": self._group.model, "why": error.message}
                logger.warning("a worker could not be started again", extra=why)
            except Exception:
                logger.exception("a worker could not be started again", extra={"model": self._group.model})
            failures += 1

    def _retire(self, worker: Worker) -> None:
        retiring = asyncio.create_task(_drain(worker, _DRAIN_SECONDS), name="retire worker")
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def _bury(self, worker: Worker) -> None:
        """Sees a process that has closed its connection to its end, and tells how that was."""
        if worker.process is not None:
            try:
                async with asyncio.timeout(_RETIRE_SECONDS):
                    status = await worker.process.wait()
            except TimeoutError:
                worker.kill("closed its connection and went on")
                status = await worker.process.wait()
            how = worker.killed_for or status.describe()
            logger.warning("a worker ended", extra={**self._about(worker), "how": how})

    def _about(self, worker: Worker) -> dict[str, object]:
        return {"model": self._group.model, "worker": worker.pid}


async def _drain(worker: Worker, grace_seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_seconds):
            await worker.idle()
    await worker.retire(_RETIRE_SECONDS)
