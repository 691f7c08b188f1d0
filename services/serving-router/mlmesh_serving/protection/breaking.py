"""A circuit breaker before a backend."""

import asyncio
from functools import partial

from mlmesh_kit.errors import DeadlineExceeded, ServiceError, Unavailable

from mlmesh_serving.backend import Backend, WireRequest
from mlmesh_serving.protection.before import Before
from mlmesh_serving.protection.breaker import Breaker, BreakerSettings, BreakerState
from mlmesh_serving.protection.faults import error_of, is_fault
from mlmesh_serving.protection.futures import Future
from mlmesh_serving.protection.metrics import BREAKER, BREAKER_OPENED

_PATIENCE_SECONDS = 1.0
_CLOCK_SECONDS = 0.01  # a loop's clock and its timers are not exact


class Breaking(Before):
    """A Backend before another, with a breaker between them: for a stage or a backend that is somewhere else.

    A deadline that passed is the backend's fault only where it had a second or more: a client that allows five
    milliseconds says nothing of the backend. What its caller gave up earlier says nothing either.

    Args:
        inner: Answers.
        name: Of what is behind, for messages and metrics.
        settings: When the breaker opens.
    """

    def __init__(self, inner: Backend, name: str, settings: BreakerSettings | None = None) -> None:
        super().__init__(inner)
        self._name = name
        self.breaker = Breaker(settings)
        self._shown = BreakerState.CLOSED
        self._gauge = BREAKER.labels(name)
        self._opened = BREAKER_OPENED.labels(name)

    @property
    def state(self) -> BreakerState:
        """Whether requests pass."""
        return self.breaker.state(asyncio.get_running_loop().time())

    def submit(self, request: WireRequest) -> Future:
        """Hands a request on.

        Raises:
            Unavailable: The breaker is open.
        """
        now = asyncio.get_running_loop().time()
        period = self.breaker.admit(now)
        self._show(now)
        if period is None:
            raise Unavailable(
                f"{self._name} is not asked for now, after too many errors",
                retry_after_seconds=max(self.breaker.retry_after(now), 0.1),
            )
        try:
            future = self._inner.submit(request)
        except BaseException as error:
            self.breaker.finish(now, period, fault=is_fault(error))
            self._show(now)
            raise
        future.add_done_callback(partial(self._ended, period, now, request.deadline))
        return future

    def _ended(self, period: int, sent: float, deadline: float | None, future: Future) -> None:
        now = asyncio.get_running_loop().time()
        self.breaker.finish(now, period, fault=_fault(error_of(future), now, sent, deadline))
        self._show(now)

    def _show(self, now: float) -> None:
        state = self.breaker.state(now)
        if state is not self._shown:
            self._gauge.set(state.value)
            if state is BreakerState.OPEN:
                self._opened.inc()
            self._shown = state


def _fault(error: BaseException | None, now: float, sent: float, deadline: float | None) -> bool | None:
    if error is None:
        return False
    late = deadline is not None and now >= deadline - _CLOCK_SECONDS
    if isinstance(error, DeadlineExceeded) or (isinstance(error, asyncio.CancelledError) and late):
        return True if now - sent >= _PATIENCE_SECONDS else None
    if isinstance(error, asyncio.CancelledError):
        return None
    return is_fault(error) if isinstance(error, ServiceError) else True
