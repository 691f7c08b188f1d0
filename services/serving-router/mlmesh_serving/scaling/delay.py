"""The largest of the last values: what holds scaling down back (Knative's pkg/autoscaler/aggregation/max)."""

import math
from collections import deque

_GRANULARITY_SECONDS = 2  # Knative's autoscaler decides every two seconds


class DelayWindow:
    """The largest value of the last seconds, in constant time.

    Args:
        seconds: Length of the window.
    """

    def __init__(self, seconds: float) -> None:
        self._slots = math.ceil(seconds / _GRANULARITY_SECONDS)
        self._maxima: deque[tuple[int, int]] = deque()  # (slot, value): values fall, slots rise

    def record(self, now: float, value: int) -> None:
        """Adds a value."""
        slot = math.floor(now / _GRANULARITY_SECONDS)
        while self._maxima and self._maxima[-1][1] < value:
            self._maxima.pop()
        while self._maxima and self._maxima[0][0] <= slot - self._slots:
            self._maxima.popleft()
        if not self._maxima or self._maxima[-1][0] != slot:
            self._maxima.append((slot, value))

    def current(self) -> int:
        """Gives the largest value, as of the last one that was added."""
        return self._maxima[0][1] if self._maxima else 0
