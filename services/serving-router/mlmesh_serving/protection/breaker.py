"""A circuit breaker: who asks a backend that is ill gets his refusal at once, and the backend its rest.

M. Nygard, "Release It!", 2007. Defaults: five errors one after the other (Envoy's `consecutive_5xx`); half of the
requests of ten seconds when they are twenty or more, and five seconds of rest (Netflix Hystrix).
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """Of a breaker."""

    CLOSED = 0
    """Requests pass."""
    HALF_OPEN = 1
    """One request passes, as a trial."""
    OPEN = 2
    """None passes."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a breaker opens, and for how long.

    Attributes:
        consecutive_faults: Opens after so many faults without an answer between them; 0: never for that.
        fault_share: Opens when this share of the window's requests are faults.
        min_requests: Of the window, for `fault_share` to count.
        window_seconds: What the share is taken of.
        open_seconds: Rest before the first trial; doubles with each trial that fails.
        max_open_seconds: Longest rest.
    """

    consecutive_faults: int = 5
    fault_share: float = 0.5
    min_requests: int = 20
    window_seconds: float = 10.0
    open_seconds: float = 5.0
    max_open_seconds: float = 60.0


class Breaker:
    """Counts faults and decides. Pure: it has no clock.

    Args:
        settings: When it opens.
    """

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self._settings = settings or BreakerSettings()
        self._window: deque[list[float]] = deque()  # of [second, requests, faults]
        self._consecutive = 0
        self._open_until = 0.0
        self._rest = self._settings.open_seconds
        self._state = BreakerState.CLOSED
        self._period = 0
        self._on_trial = False

    def state(self, now: float) -> BreakerState:
        """Tells whether requests pass."""
        if self._state is BreakerState.OPEN and now >= self._open_until:
            return BreakerState.HALF_OPEN
        return self._state

    def retry_after(self, now: float) -> float:
        """Gives the seconds until the next trial."""
        return max(0.0, self._open_until - now)

    def admit(self, now: float) -> int | None:
        """Asks for leave to send a request; gives what `finish` wants to be told, None when it must not be sent."""
        if self._state is BreakerState.CLOSED:
            return self._period
        if self._state is BreakerState.OPEN and now >= self._open_until:
            self._state, self._on_trial = BreakerState.HALF_OPEN, False
            self._period += 1
        if self._state is BreakerState.OPEN or self._on_trial:
            return None
        self._on_trial = True
        return self._period

    def finish(self, now: float, period: int, *, fault: bool | None) -> None:
        """Tells how a request ended.

        Args:
            now: Seconds.
            period: From `admit`. What was sent before the state changed says nothing of the state now.
            fault: Whether it was the backend's fault; None: it was given up, which says nothing.
        """
        if period != self._period:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._on_trial = False
            if fault is not None:
                self._judge_trial(now, fault=fault)
        elif fault is not None:
            self._count(now, fault=fault)

    def _judge_trial(self, now: float, *, fault: bool) -> None:
        if fault:
            self._rest = min(self._rest * 2, self._settings.max_open_seconds)
            self._open(now)
        else:
            self._rest = self._settings.open_seconds
            self._consecutive = 0
            self._window.clear()
            self._state = BreakerState.CLOSED
            self._period += 1

    def _count(self, now: float, *, fault: bool) -> None:
        settings, window = self._settings, self._window
        second = now // 1
        if not window or window[-1][0] != second:
            window.append([second, 0, 0])
            while window[0][0] <= second - settings.window_seconds:
                window.popleft()
        window[-1][1] += 1
        if not fault:
            self._consecutive = 0
            return
        window[-1][2] += 1
        self._consecutive += 1
        requests = sum(slot[1] for slot in window)
        faults = sum(slot[2] for slot in window)
        if self._consecutive == settings.consecutive_faults or (
            requests >= settings.min_requests and faults >= settings.fault_share * requests
        ):
            self._open(now)

    def _open(self, now: float) -> None:
        self._state = BreakerState.OPEN
        self._open_until = now + self._rest
        self._period += 1
