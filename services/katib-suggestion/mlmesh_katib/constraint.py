"""Outcome constraints: bounds on what a trial reports."""

import math
from dataclasses import dataclass

UNREPORTED = 1e9
"""The excess of a metric that was not reported: more than any that was."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """Bounds of a metric.

    Attributes:
        metric: Its name.
        low: The smallest value that is allowed; None: any.
        high: The largest; None: any.
    """

    metric: str
    low: float | None = None
    high: float | None = None

    def excess(self, value: float | None) -> float:
        """Tells how far beyond the bounds a value is.

        Args:
            value: What the trial reported; None: nothing that is a number.

        Returns:
            In parts of the bound that is broken (0.1: a tenth beyond), as it is where that bound is 0; 0 within the
            bounds, UNREPORTED at most.
        """
        if value is None:
            return UNREPORTED
        found = 0.0
        if self.low is not None and value < self.low:
            found = (self.low - value) / (abs(self.low) or 1.0)
        if self.high is not None and value > self.high:
            found = (value - self.high) / (abs(self.high) or 1.0)
        return min(found, UNREPORTED) if not math.isnan(found) else UNREPORTED
