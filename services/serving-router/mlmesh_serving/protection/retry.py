"""Retries of what a backend could not take."""

import asyncio
import random
from dataclasses import dataclass
from functools import partial

from mlmesh_kit.errors import Unavailable

from mlmesh_serving.backend import Backend, WireRequest
from mlmesh_serving.protection.before import Before
from mlmesh_serving.protection.budget import RetryThrottle
from mlmesh_serving.protection.faults import error_of
from mlmesh_serving.protection.futures import Future, settle
from mlmesh_serving.protection.metrics import RETRIES


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How retries are made (names of gRPC's `retryPolicy`).

    Attributes:
        max_attempts: The first one included.
        initial_backoff_seconds: Longest wait before the first retry; a random share of it is waited.
        max_backoff_seconds: Longest wait; a backend that asks for more is not tried again.
        backoff_multiplier: From one wait to the next.
    """

    max_attempts: int = 3
    initial_backoff_seconds: float = 0.05
    max_backoff_seconds: float = 1.0
    backoff_multiplier: float = 2.0


class Retrying(Before):
    """A Backend before another, which sends again what ended with UNAVAILABLE, and only that.

    What a crashed worker had begun may be computed twice: that harms no prediction that only reads. The wait is what
    the error asks for (`retry_after_seconds`), or grows with each attempt; never past the request's deadline. Attempts
    are throttled as in gRFC A6.

    Args:
        inner: Answers.
        model: Its name, for metrics.
        settings: How retries are made.
        throttle: Its budget, shared between those that ask the same.
        jitter: Gives random numbers in [0, 1).
    """

    def __init__(
        self,
        inner: Backend,
        model: str,
        settings: RetrySettings | None = None,
        throttle: RetryThrottle | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        super().__init__(inner)
        self._settings = settings or RetrySettings()
        self._throttle = throttle or RetryThrottle()
        self._jitter = jitter or random.Random()  # noqa: S311  # spreads load, hides nothing
        self._retries = RETRIES.labels(model)

    @property
    def in_flight(self) -> int:
        """See `Backend.in_flight`; without those that wait to be sent again."""
        return self._inner.in_flight

    def submit(self, request: WireRequest) -> Future:
        """Hands a request on; see `Backend.submit`."""
        future: Future = asyncio.get_running_loop().create_future()
        self._send(_Attempts(request, future))
        return future

    def _send(self, attempts: "_Attempts") -> None:
        if attempts.future.done():
            return
        attempts.made += 1
        try:
            behind = self._inner.submit(attempts.request)
        except Unavailable as error:
            if not self._again(attempts, error):
                attempts.future.set_exception(error)
        except Exception as error:
            attempts.future.set_exception(error)
        else:
            attempts.behind = behind
            behind.add_done_callback(partial(self._ended, attempts))

    def _ended(self, attempts: "_Attempts", behind: Future) -> None:
        error = error_of(behind)
        if error is None:
            self._throttle.answered()
        elif isinstance(error, Unavailable) and not attempts.future.done() and self._again(attempts, error):
            return
        settle(attempts.future, behind)

    def _again(self, attempts: "_Attempts", error: Unavailable) -> bool:
        """Sends it again in a while, if that may be and can help."""
        settings = self._settings
        allowed = self._throttle.failed()
        if not allowed or attempts.made >= settings.max_attempts:
            return False
        longest = settings.initial_backoff_seconds * settings.backoff_multiplier ** (attempts.made - 1)
        wait = min(longest, settings.max_backoff_seconds) * self._jitter.random()
        wait = max(wait, error.retry_after_seconds or 0.0)
        loop = asyncio.get_running_loop()
        deadline = attempts.request.deadline
        if wait > settings.max_backoff_seconds or (deadline is not None and loop.time() + wait >= deadline):
            return False
        self._retries.inc()
        attempts.behind = None
        attempts.timer = loop.call_later(wait, self._send, attempts)
        return True


class _Attempts:
    """A request, and what is done for it."""

    __slots__ = ("behind", "future", "made", "request", "timer")

    def __init__(self, request: WireRequest, future: Future) -> None:
        self.request = request
        self.future = future
        self.made = 0
        self.behind: Future | None = None
        self.timer: asyncio.TimerHandle | None = None
        future.add_done_callback(self.ended)

    def ended(self, future: Future) -> None:
        if future.cancelled():
            if self.behind is not None:
                self.behind.cancel()
            if self.timer is not None:
                self.timer.cancel()
