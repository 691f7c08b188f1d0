"""Averages over a window of time, as Knative's autoscaler takes them (pkg/autoscaler/aggregation).

Values fall into buckets of one second. Times are seconds of any clock that does not go back.
"""

import math

_PRECISION = 1e6  # averages are cut after six decimals, so that sums of floats which should be whole are
_WEIGHT_PRECISION = 0.9999  # what the weights of a window add up to, at least
_MIN_COEFFICIENT = 0.2  # else the weights of a very long window would be those of the plain average


class TimedBuckets:
    """The plain average.

    A window that is not full yet is averaged over the seconds since its first value; seconds without a value between
    two values count as zero; seconds since the last value do not count.

    Args:
        window_seconds: Length of the window.
    """

    def __init__(self, window_seconds: int) -> None:
        self._window = window_seconds
        self._buckets = [0.0] * window_seconds
        self._total = 0.0
        self._first = 0
        self._last: int | None = None

    def record(self, now: float, value: float) -> None:
        """Adds a value; one that is older than the window is dropped."""
        second = math.floor(now)
        last = self._last
        if last is None or second - last >= self._window:
            self._buckets = [0.0] * self._window
            self._total = 0.0
            self._first = self._last = second
        elif second > last:
            for passed in range(last + 1, second + 1):
                index = passed % self._window
                self._total -= self._buckets[index]
                self._buckets[index] = 0.0
            self._last = second
        elif second <= last - self._window:
            return
        else:
            self._first = min(self._first, second)
        self._buckets[second % self._window] += value
        self._total += value

    def is_empty(self, now: float) -> bool:
        """Tells whether nothing came for longer than a window."""
        return self._last is None or math.floor(now) - self._last > self._window

    def average(self, now: float) -> float:
        """Gives the average of the window that ends now; 0 where there is nothing."""
        if self._last is None:
            return 0.0
        silent = math.floor(now) - self._last
        if silent >= self._window:
            return 0.0
        total, seconds = self._total, self._window
        for passed in range(1, silent + 1):
            total -= self._buckets[(self._last + passed) % self._window]
        if silent > 0:
            seconds -= silent
        seconds = min(self._last - self._first + 1, seconds)
        return math.floor(total / seconds * _PRECISION) / _PRECISION


class WeightedBuckets(TimedBuckets):
    """The exponentially weighted average: a value counts `1 - coefficient` times as much as the one a second later.

    Args:
        window_seconds: Length of the window; the coefficient follows from it.
    """

    def __init__(self, window_seconds: int) -> None:
        super().__init__(window_seconds)
        self._coefficient = max(1 - (1 - _WEIGHT_PRECISION) ** (1 / window_seconds), _MIN_COEFFICIENT)

    def average(self, now: float) -> float:
        """Gives the weighted average of the window that ends now; 0 where there is nothing."""
        if self._last is None or self.is_empty(now):
            return 0.0
        silent = max(0, math.floor(now) - self._last)
        weight = self._coefficient * (1 - self._coefficient) ** silent
        found = 0.0
        for back in range(self._window - silent):
            found += self._buckets[(self._last - back) % self._window] * weight
            weight *= 1 - self._coefficient
        return found
