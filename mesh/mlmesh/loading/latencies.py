"""Latencies, counted in classes that are 1 % wide: small, can be added up, and exact enough for percentiles."""

import math
from collections import Counter
from collections.abc import Mapping

_WIDTH = math.log(1.01)
_SMALLEST = 1e-6  # seconds


class Latencies:
    """A histogram.

    Args:
        classes: Class → how many; as `classes` of another one gave it.
    """

    def __init__(self, classes: Mapping[int, int] | None = None) -> None:
        self.classes: Counter[int] = Counter(classes or {})

    def add(self, seconds: float) -> None:
        """Counts one."""
        self.classes[math.ceil(math.log(max(seconds, _SMALLEST) / _SMALLEST) / _WIDTH)] += 1

    def merge(self, other: "Latencies") -> None:
        """Counts all of another one."""
        self.classes.update(other.classes)

    @property
    def count(self) -> int:
        """How many there are."""
        return self.classes.total()

    def percentile(self, percent: float) -> float:
        """Gives the seconds that so many percent did not exceed, at most 1 % too large; NaN: there are none."""
        wanted = max(1, math.ceil(self.count * percent / 100))
        for index in sorted(self.classes):
            wanted -= self.classes[index]
            if wanted <= 0:
                return _SMALLEST * math.exp(index * _WIDTH)
        return math.nan
