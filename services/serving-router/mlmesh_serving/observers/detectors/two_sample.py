"""Tests of whether two samples of one feature come from one distribution.

Numbers: Kolmogorov-Smirnov, two-sided (Massey, "The Kolmogorov-Smirnov test for goodness of fit", 1951). Categories:
Pearson's chi-squared on the table of counts; where an expected count is below 5, and its approximation not to be
trusted, the same statistic against tables with the same margins drawn at random (Hope, "A simplified Monte Carlo
significance test procedure", 1968).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_EXPECTED = 5.0
_LEAST_DRAWS = 999
_MOST_DRAWS = 99_999


def kolmogorov_smirnov(reference: NDArray[Any], window: NDArray[Any]) -> tuple[float, float]:
    """Gives the p-value and the largest distance of the two empirical distribution functions.

    Args:
        reference: Values, shape (n,).
        window: Values, shape (m,).
    """
    from scipy import stats

    result = stats.ks_2samp(reference, window)
    return float(result.pvalue), float(result.statistic)


def chi_squared(
    reference: NDArray[Any], window: NDArray[Any], level: float, random: np.random.Generator
) -> tuple[float, float]:
    """Gives the p-value and Cramér's V, the statistic as a distance between 0 and 1.

    Args:
        reference: Categories, shape (n,), of a dtype that can be sorted.
        window: Categories, shape (m,).
        level: p-value that will count as small; enough tables are drawn to reach it.
        random: Draws the tables.
    """
    _, codes = np.unique(np.concatenate([reference, window]), return_inverse=True)
    categories = int(codes.max()) + 1
    if categories == 1:
        return 1.0, 0.0
    count = len(codes)
    totals = np.bincount(codes, minlength=categories)
    found = np.bincount(codes[len(reference) :], minlength=categories)
    statistic = float(_statistic(found, totals, len(window)))
    smallest = totals.min() * min(len(window), len(reference)) / count
    if smallest >= _LEAST_EXPECTED:
        from scipy import stats

        p_value = float(stats.chi2.sf(statistic, categories - 1))
    else:
        draws = min(_MOST_DRAWS, max(_LEAST_DRAWS, math.ceil(2 / level)))
        drawn = random.multivariate_hypergeometric(totals, len(window), size=draws, method="marginals")
        reached = np.count_nonzero(_statistic(drawn, totals, len(window)) >= statistic * (1 - 1e-12))
        p_value = (1 + reached) / (1 + draws)
    return p_value, math.sqrt(statistic / count)


def _statistic(found: NDArray[Any], totals: NDArray[Any], size: int) -> Any:
    """Gives Pearson's statistic of 2 x k tables of which the second rows, the column totals and their sum are known."""
    count = totals.sum()
    deviation = (found - totals * size / count) ** 2
    return (deviation * count / totals * (1 / size + 1 / (count - size))).sum(axis=-1)
