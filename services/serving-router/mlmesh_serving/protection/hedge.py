"""Hedged requests: a second one is sent when the first takes unusually long, and the first answer counts.

J. Dean, L. A. Barroso: The Tail at Scale, CACM 56(2), 2013. For predictions that may be computed twice.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial

from mlmesh_kit.errors import ServiceError

from mlmesh_serving.backend import Backend, WireRequest
from mlmesh_serving.protection.before import Before
from mlmesh_serving.protection.budget import ShareBudget
from mlmesh_serving.protection.faults import error_of
from mlmesh_serving.protection.futures import Future, settle
from mlmesh_serving.protection.metrics import HEDGES, HEDGES_WON

_REMEMBERED = 1000
_REFRESH = 50  # answers after which the percentile is taken anew


@dataclass(frozen=True, slots=True)
class HedgeSettings:
    """When a second request is sent.

    Attributes:
        percentile: Of the last latencies: the second one is sent after so long, in (0, 100).
        min_delay_seconds: Least wait.
        budget: Second requests as a share of all, in (0, 1].
        min_answers: Known latencies, before which no second request is sent.
    """

    percentile: float = 95.0
    min_delay_seconds: float = 0.001
    budget: float = 0.05
    min_answers: int = 100


class LatencyWindow:
    """A percentile of the last latencies.

    Args:
        percentile: Which one, in (0, 100).
        min_answers: Known latencies, before which there is none.
    """

    def __init__(self, percentile: float, min_answers: int) -> None:
        self._percentile = percentile
        self._min = min_answers
        self._last: deque[float] = deque(maxlen=_REMEMBERED)
        self._fresh = 0
        self._value: float | None = None

    def record(self, seconds: float) -> None:
        """Adds a latency."""
        self._last.append(seconds)
        self._fresh += 1
        if len(self._last) >= self._min and (self._value is None or self._fresh >= _REFRESH):
            ordered = sorted(self._last)
            self._value = ordered[min(len(ordered) - 1, int(len(ordered) * self._percentile / 100))]
            self._fresh = 0

    @property
    def value(self) -> float | None:
        """The percentile, seconds; None: too little is known."""
        return self._value


class Hedging(Before):
    """A Backend before another, which hedges. The loser of the two is cancelled; a failure waits for the other.

    Args:
        inner: Answers, from more than one replica.
        model: Its name, for metrics.
        settings: When a second request is sent.
    """

    def __init__(self, inner: Backend, model: str, settings: HedgeSettings | None = None) -> None:
        super().__init__(inner)
        self._settings = settings or HedgeSettings()
        self._latencies = LatencyWindow(self._settings.percentile, self._settings.min_answers)
        self._budget = ShareBudget(self._settings.budget)
        self._hedges = HEDGES.labels(model)
        self._won = HEDGES_WON.labels(model)

    @property
    def in_flight(self) -> int:
        """See `Backend.in_flight`; a hedged request counts twice."""
        return self._inner.in_flight

    def submit(self, request: WireRequest) -> Future:
        """Hands a request on, and again when it takes long; see `Backend.submit`."""
        loop = asyncio.get_running_loop()
        first = self._inner.submit(request)
        future: Future = loop.create_future()
        race = _Race(request, future, loop.time())
        self._enter(race, first)
        self._budget.earn()
        delay = self._latencies.value
        if delay is not None:
            race.timer = loop.call_later(max(delay, self._settings.min_delay_seconds), self._hedge, race)
        return future

    def _hedge(self, race: "_Race") -> None:
        # One replica computes in turn: behind the first request, the second one would only be later.
        if race.future.done() or self._inner.ready < 2 or not self._budget.spend():
            return
        try:
            second = self._inner.submit(race.request)
        except ServiceError:
            return  # there is no room for it: the first one goes on
        self._hedges.inc()
        self._enter(race, second)

    def _enter(self, race: "_Race", runner: Future) -> None:
        race.runners.append(runner)
        runner.add_done_callback(partial(self._ended, race))

    def _ended(self, race: "_Race", runner: Future) -> None:
        error = error_of(runner)
        if error is None:
            # Measured from its own start, hedges would hide how long the first ones take.
            self._latencies.record(asyncio.get_running_loop().time() - race.started)
            if not race.future.done() and runner is not race.runners[0]:
                self._won.inc()
        elif any(not other.done() for other in race.runners):
            return
        settle(race.future, runner)


class _Race:
    """A request, and those that run for it."""

    __slots__ = ("future", "request", "runners", "started", "timer")

    def __init__(self, request: WireRequest, future: Future, started: float) -> None:
        self.request = request
        self.future = future
        self.started = started
        self.runners: list[Future] = []
        self.timer: asyncio.TimerHandle | None = None
        future.add_done_callback(self.ended)

    def ended(self, _: Future) -> None:
        if self.timer is not None:
            self.timer.cancel()
        for runner in self.runners:
            runner.cancel()  # of no effect on the one that won
