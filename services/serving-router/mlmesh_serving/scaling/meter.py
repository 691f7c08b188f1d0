"""What is measured of a revision's requests, as they come and go."""

import time
from collections.abc import Callable

from mlmesh_serving.scaling.autoscaler import Sample

_SMOOTHING = 0.1  # weight of the newest request in the averages
_SATURATED = 2.0  # latency by that of a request which is alone, from which on requests wait for each other


class InFlight:
    """Requests in flight in all revisions together."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class RequestMeter:
    """Counts requests in flight, and the time that they are, exactly: no request falls between two samples.

    Args:
        clock: Seconds; the event loop's, or one that runs with it.
        everywhere: Is counted along.

    Attributes:
        count: Requests in flight.
        used: When the last one came or went.
    """

    __slots__ = (
        "_alone", "_clock", "_depth", "_everywhere", "_integral", "_latency", "_requests", "_sampled", "_since",
        "count", "used",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], float] = time.monotonic, everywhere: InFlight | None = None) -> None:
        self._clock = clock
        self._everywhere = everywhere if everywhere is not None else InFlight()
        self._since = self._sampled = self.used = clock()
        self._integral = 0.0
        self._requests = 0
        self._latency = 0.0
        self._depth = 0.0
        self._alone = 0.0
        self.count = 0

    def enter(self) -> tuple[float, int]:
        """Notes a request that comes; gives what `leave` wants to be told."""
        now = self._clock()
        self._integral += self.count * (now - self._since)
        self._since = self.used = now
        self._requests += 1
        self._everywhere.count += 1
        self.count += 1
        return now, self.count

    def leave(self, entered: tuple[float, int], *, answered: bool, cold: bool = False) -> None:
        """Notes a request that goes.

        Args:
            entered: From `enter`.
            answered: It got its answer. One that was given up, or failed, tells only that an answer takes at least so
                long: it counts where that is longer than was known.
            cold: It came when there was no replica: how long that took says nothing of the others.
        """
        now = self._clock()
        self._integral += self.count * (now - self._since)
        self._since = self.used = now
        self._everywhere.count -= 1
        self.count -= 1
        started, depth = entered
        latency = now - started
        if cold:
            return
        if not self._depth:
            if answered:
                self._latency = self._alone = latency
                self._depth = float(depth)
        elif answered or latency > self._latency:
            self._latency += _SMOOTHING * (latency - self._latency)
            self._depth += _SMOOTHING * (depth - self._depth)
            if answered and depth == 1:
                self._alone += _SMOOTHING * (latency - self._alone)

    def take(self) -> Sample:
        """Gives what happened since the last call."""
        now = self._clock()
        self._integral += self.count * (now - self._since)
        seconds = now - self._sampled
        sample = Sample(self._integral / seconds, self._requests / seconds) if seconds > 0 else Sample(self.count, 0.0)
        self._since = self._sampled = now
        self._integral, self._requests = 0.0, 0
        return sample

    def expected_latency(self) -> float:
        """Gives the seconds that a request which came now would be in flight; 0 where nothing is known.

        By Little's law (J. D. C. Little, "A Proof for the Queuing Formula: L = λW", 1961) the throughput is the number
        in flight by the latency, both as the last requests saw them; behind `count` others, a request is answered after
        (count + 1) / throughput. That is exact where the replicas are busy. Where they are not, more requests in flight
        make more throughput, and not a longer wait: so while requests take hardly longer than one that is alone, it is
        at most the latency that was seen.
        """
        if not self._depth:
            return 0.0
        longer = (self.count + 1) / self._depth
        return self._latency * (longer if self._latency > _SATURATED * self._alone else min(1.0, longer))
