"""Scales: which place on the page a value has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_HUGE = 1e150
"""Values beyond it are drawn there: differences of larger ones are infinite."""
_LOG_RATIO = 1e3
_OUTLYING = 4.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values of a range to places, and those beyond it to its ends.

    Attributes:
        low, high: Of the values.
        start, end: Places of `low` and `high`, in pixels.
        log: Whether orders of magnitude, not differences, count.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Gives the place of a value."""
        low, high, inner = self._inner(self.low), self._inner(self.high), self._inner(value)
        share = (inner - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Tells whether a value is within the range."""
        return self.low <= value <= self.high

    def ticks(self, about: int) -> list[float]:
        """Gives round values within the range, `about` of them."""
        if self.log and self.high / self.low >= 10:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, math.ceil((last - first + 1) / about))
            return [10.0**power for power in range(first, last + 1, every)]
        width = (self.high - self.low) / about
        if width <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(width))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= width * 0.999)
        first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
        return [round(place * step, 12 - math.floor(math.log10(step))) for place in range(first, last + 1)]

    def _inner(self, value: float) -> float:
        bounded = min(max(value, -_HUGE), _HUGE)
        return math.log10(max(bounded, self.low * 1e-9)) if self.log else bounded


def fit(values: Sequence[float], start: float, end: float, *, maximize: bool | None = None) -> Scale:
    """Makes a scale of the values that are to be seen.

    It is logarithmic where all are positive and span three orders of magnitude. Else, where a way of better is given,
    values that are far worse than three quarters of all are left outside: one of a trial that diverged would flatten
    all others.

    Args:
        values: At least one.
        start, end: See `Scale`.
        maximize: Whether larger is better; None: neither.
    """
    bounded = [min(max(value, -_HUGE), _HUGE) for value in values]
    low, high = min(bounded), max(bounded)
    if low > 0 and high / low >= _LOG_RATIO:
        return Scale(low / 1.2, high * 1.2, start, end, log=True)
    if maximize is not None and len(bounded) >= 8:
        losses = sorted(-value if maximize else value for value in bounded)
        best, good = losses[0], losses[int(len(losses) * 0.75)]
        limit = best + _OUTLYING * (good - best)
        if best < limit < losses[-1]:
            low, high = (-limit, high) if maximize else (low, limit)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return Scale(low - margin, high + margin, start, end)
