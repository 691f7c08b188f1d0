"""Deadlines: the client's or the model's own, whichever is sooner, passed on and kept."""

import asyncio

from mlmesh_kit.errors import DeadlineExceeded
from prometheus_client import Counter

from mlmesh_serving.backend import Backend, WireRequest
from mlmesh_serving.protection.before import Before
from mlmesh_serving.protection.futures import Future, settle
from mlmesh_serving.protection.metrics import LATE
from mlmesh_serving.protection.wheel import Timer, TimerWheel


def sooner(deadline: float | None, now: float, timeout_seconds: float) -> float | None:
    """Gives the sooner of a client's deadline and a model's timeout; None: there is neither.

    Args:
        deadline: The event loop's time; None: the client set none.
        now: The event loop's time.
        timeout_seconds: 0: the model has none.
    """
    if not timeout_seconds:
        return deadline
    limit = now + timeout_seconds
    return limit if deadline is None or deadline > limit else deadline


class _Call(Timer):
    """A request that is being answered."""

    __slots__ = ("behind", "future", "late")

    def __init__(self, future: Future, behind: Future, late: Counter) -> None:
        super().__init__()
        self.future = future
        self.behind = behind
        self.late = late
        behind.add_done_callback(self.answered)
        future.add_done_callback(self.ended)

    def expire(self) -> None:
        if not self.future.done():
            self.late.inc()
            self.future.set_exception(DeadlineExceeded("the deadline passed before there was an answer"))

    def answered(self, behind: Future) -> None:
        settle(self.future, behind)

    def ended(self, _: Future) -> None:
        TimerWheel.discard(self)
        self.behind.cancel()  # of no effect where it is done


class Deadlines(Before):
    """A Backend before another, which ends what takes too long and tells the other how long it has.

    Args:
        inner: Answers.
        model: Its name, for metrics.
        timeout_seconds: Longest that a request may take (the manifest's `timeout`); 0: as the client says.
        wheel: Keeps the deadlines.
    """

    def __init__(self, inner: Backend, model: str, timeout_seconds: float, wheel: TimerWheel) -> None:
        super().__init__(inner)
        self._timeout = timeout_seconds
        self._wheel = wheel
        self._late = LATE.labels(model)

    def submit(self, request: WireRequest) -> Future:
        """Hands a request on with its deadline; the backend is told to give up what is cancelled or late.

        Raises:
            DeadlineExceeded: It is over already.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = sooner(request.deadline, now, self._timeout)
        if deadline is None:
            return self._inner.submit(request)
        if deadline <= now:
            self._late.inc()
            raise DeadlineExceeded("the deadline passed before the request could be taken")
        if deadline != request.deadline:
            request = WireRequest(
                request.door, request.model, request.body, request.json_length, request.headers, deadline
            )
        future: Future = loop.create_future()
        self._wheel.add(deadline, _Call(future, self._inner.submit(request), self._late))
        return future
