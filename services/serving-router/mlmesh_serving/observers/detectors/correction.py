"""Many tests at once.

Bonferroni (Dunn, "Multiple comparisons among means", 1961) bounds the probability of any false alarm;
Benjamini-Hochberg ("Controlling the false discovery rate", 1995) bounds the expected share of false ones among the
alarms, and finds more. Where nothing has changed at all both alarm at most at the rate asked for.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def threshold(p_values: NDArray[Any], level: float, correction: str) -> float:
    """Gives the p-value up to which a test counts as an alarm.

    Args:
        p_values: Of all tests, shape (n,).
        level: Rate of false alarms that is allowed.
        correction: bonferroni or bh.
    """
    count = len(p_values)
    if correction == "bonferroni":
        return level / count
    steps = level * np.arange(1, count + 1) / count
    below = np.flatnonzero(np.sort(p_values) <= steps)
    return float(steps[below[-1]]) if len(below) else level / count
