"""What stands before the replicas of a revision: requests wait here while there is none, or all are taken."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from mlmesh_kit.errors import DeadlineExceeded, ResourceExhausted, ServiceError, Unavailable

from mlmesh_serving.backend import Backend, WireAnswer, WireRequest
from mlmesh_serving.protection.futures import cancel_with, settle
from mlmesh_serving.protection.metrics import REFUSED
from mlmesh_serving.protection.wheel import Timer, TimerWheel
from mlmesh_serving.scaling.meter import InFlight, RequestMeter

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.01  # how often it looks for replicas that came, while anything waits
_RETRY_AFTER_SECONDS = 1.0

Future = asyncio.Future[WireAnswer]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait for a replica of one revision.

    Attributes:
        requests: Most at once.
        body_bytes: Most bytes of their bodies.
    """

    requests: int = 1000
    body_bytes: int = 64 << 20


class _Waiting(Timer):
    """A request in the queue; the future is what its caller holds."""

    __slots__ = ("activator", "cold", "future", "request")

    def __init__(self, activator: "Activator", request: WireRequest, future: Future) -> None:
        super().__init__()
        self.activator = activator
        self.request = request
        self.future = future
        self.cold = not activator.ready

    def expire(self) -> None:
        """Ends it: its time is over."""
        self.activator.give_up(self, DeadlineExceeded("the deadline passed while the request waited for a replica"))


class Activator:
    """A Backend before another: it keeps requests while none of its replicas can take one, and wakes it up from zero.

    The order of requests is kept. What waits leaves by an answer, by its deadline, by its caller's cancelling, or with
    the reason why no replica could be started. At most `concurrency` times the ready replicas are handed on at once, so
    that a backend which gives each request to its least busy replica has at most `concurrency` in each
    (`containerConcurrency`).

    Args:
        inner: Holds the replicas.
        model: Its name, for messages and metrics.
        concurrency: Most requests in flight in one replica; 0: no limit.
        limits: Of the queue.
        start: Brings a replica up, when there is none and a request waits; returns when one is there, and raises a
            `ServiceError` when none can be. Default: one replica by `inner.scale`.
        wheel: Keeps the deadlines of what waits.
        clock: Seconds, for what is measured.
        everywhere: Counts the requests of all revisions.

    Attributes:
        meter: What is measured.
    """

    def __init__(
        self,
        inner: Backend,
        model: str,
        *,
        concurrency: int = 0,
        limits: QueueLimits | None = None,
        start: Callable[[], Awaitable[None]] | None = None,
        wheel: TimerWheel | None = None,
        clock: Callable[[], float] = time.monotonic,
        everywhere: InFlight | None = None,
    ) -> None:
        self._inner = inner
        self._model = model
        self._concurrency = concurrency
        self._limits = limits or QueueLimits()
        self._start = start or partial(inner.scale, 1)
        self._wheel = wheel or TimerWheel()
        self._queue: OrderedDict[_Waiting, None] = OrderedDict()
        self._queued_bytes = 0
        self._handed_on = 0
        self._starting: asyncio.Task[None] | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._closed = False
        self._emptied = asyncio.Event()
        self._refused = REFUSED.labels(model, "queue")
        self.meter = RequestMeter(clock, everywhere)

    @property
    def in_flight(self) -> int:
        """Requests that have no answer yet, those that wait included."""
        return self.meter.count

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def ready(self) -> int:
        """Replicas that answer now."""
        return self._inner.ready

    def submit(self, request: WireRequest) -> Future:
        """Hands a request on, or keeps it until that can be done.

        Raises:
            ResourceExhausted: The queue is full.
            Unavailable: The revision is being closed.
        """
        if not self._queue and self._has_room() and not self._closed:
            entered = self.meter.enter()
            try:
                future = self._inner.submit(request)
            except BaseException as error:
                self.meter.leave(entered, answered=False)
                if not self._may_wait(error):
                    raise
            else:
                self._handed_on += 1
                future.add_done_callback(partial(self._left, entered))
                return future
        return self._keep(request)

    async def scale(self, replicas: int) -> None:
        """Asks for a number of replicas; see `Backend.scale`."""
        try:
            await self._inner.scale(replicas)
        finally:
            self._advance()

    async def drain(self, grace_seconds: float) -> None:
        """Takes no more requests and waits for those that it has, at most so long; what still waits then fails."""
        self._closed = True
        if self.meter.count:
            with contextlib.suppress(TimeoutError):  # what is left is ended below
                async with asyncio.timeout(grace_seconds):
                    await self._emptied.wait()
        self.fail_waiting(Unavailable(f"model {self._model!r} is being stopped", retry_after_seconds=1))
        if self._poll is not None:
            self._poll.cancel()

    async def close(self, grace_seconds: float) -> None:
        """Drains, and closes what is behind it; both together take at most so long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_seconds
        await self.drain(grace_seconds)
        if self._starting is not None:
            self._starting.cancel()
        await self._inner.close(max(0.0, end - loop.time()))

    def give_up(self, waiting: _Waiting, error: Exception | None) -> None:
        """Takes a request out of the queue, with an error for its caller unless that is gone."""
        if waiting not in self._queue:
            return
        del self._queue[waiting]
        self._dequeued(waiting)
        if error is not None and not waiting.future.done():
            waiting.future.set_exception(error)

    def fail_waiting(self, error: ServiceError) -> None:
        """Ends all that waits with one error."""
        for waiting in list(self._queue):
            self.give_up(waiting, error)

    def _has_room(self) -> bool:
        ready = self._inner.ready
        return ready > 0 if not self._concurrency else self._handed_on < self._concurrency * ready

    def _may_wait(self, error: BaseException) -> bool:
        """Tells whether what the backend has refused finds a place later: when a replica comes, or a request goes."""
        if isinstance(error, Unavailable):
            return not self._inner.ready
        return isinstance(error, ResourceExhausted) and self._handed_on > 0

    def _left(self, entered: tuple[float, int], future: Future) -> None:
        self._handed_on -= 1
        self._leave(entered, future)
        if self._queue:
            self._advance()

    def _leave(self, entered: tuple[float, int], future: Future, *, cold: bool = False) -> None:
        self.meter.leave(entered, answered=not future.cancelled() and future.exception() is None, cold=cold)
        if self._closed and not self.meter.count:
            self._emptied.set()

    def _keep(self, request: WireRequest) -> Future:
        if self._closed:
            raise Unavailable(f"model {self._model!r} is being stopped", retry_after_seconds=1)
        full = len(self._queue) >= self._limits.requests
        if full or self._queued_bytes + len(request.body) > self._limits.body_bytes:
            self._refused.inc()
            raise ResourceExhausted(
                f"too many requests wait for model {self._model!r}",
                retry_after_seconds=max(self.meter.expected_latency(), _RETRY_AFTER_SECONDS),
            )
        loop = asyncio.get_running_loop()
        future: Future = loop.create_future()
        waiting = _Waiting(self, request, future)
        self._queue[waiting] = None
        self._queued_bytes += len(request.body)
        if request.deadline is not None:
            self._wheel.add(request.deadline, waiting)
        entered = self.meter.enter()
        future.add_done_callback(partial(self._answered, waiting, entered))
        if self._poll is None:
            self._poll = loop.call_later(_POLL_SECONDS, self._look)
        self._wake()
        return future

    def _answered(self, waiting: _Waiting, entered: tuple[float, int], future: Future) -> None:
        """Is called when the caller of a request that waited has its answer, or has cancelled it."""
        self._leave(entered, future, cold=waiting.cold)
        self.give_up(waiting, None)

    def _dequeued(self, waiting: _Waiting) -> None:
        self._queued_bytes -= len(waiting.request.body)
        self._wheel.discard(waiting)

    def _look(self) -> None:
        """Looks for replicas that came, or all went, while anything waits."""
        self._poll = None
        self._advance()
        if self._queue:
            self._poll = asyncio.get_running_loop().call_later(_POLL_SECONDS, self._look)
            self._wake()

    def _advance(self) -> None:
        """Hands on what there is room for."""
        while self._queue and self._has_room():
            waiting = next(iter(self._queue))
            if waiting.future.done():  # its caller has cancelled, and the loop has not told us yet
                self.give_up(waiting, None)
                continue
            try:
                behind = self._inner.submit(waiting.request)
            except Exception as error:
                if self._may_wait(error):
                    return
                self.give_up(waiting, error)
            else:
                self.give_up(waiting, None)
                self._handed_on += 1
                behind.add_done_callback(partial(self._pass_on, waiting.future))
                waiting.future.add_done_callback(partial(cancel_with, behind))

    def _pass_on(self, future: Future, behind: Future) -> None:
        self._handed_on -= 1
        settle(future, behind)
        if self._queue:
            self._advance()

    def _wake(self) -> None:
        if not self._inner.ready and (self._starting is None or self._starting.done()):
            self._starting = asyncio.get_running_loop().create_task(self._bring_up(), name=f"start {self._model}")

    async def _bring_up(self) -> None:
        try:
            await self._start()
        except ServiceError as error:
            retry_after = getattr(error, "retry_after_seconds", None) or _RETRY_AFTER_SECONDS
            self.fail_waiting(
                Unavailable(
                    f"model {self._model!r} could not be started: {error.message}", retry_after_seconds=retry_after
                )
            )
        except Exception:
            logger.exception("starting %s failed", self._model)
            message = f"model {self._model!r} could not be started; the service's log has the reason"
            self.fail_waiting(Unavailable(message, retry_after_seconds=_RETRY_AFTER_SECONDS))
        self._advance()
