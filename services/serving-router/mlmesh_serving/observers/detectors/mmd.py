"""Maximum mean discrepancy: one test for all features together, and for how they hang together.

Source: Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test", JMLR 13 (2012): the unbiased estimate
(equation 3) with a Gaussian kernel whose width is the median distance, and the threshold by permutation.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_REFERENCE = 1000


class MMDTest:
    """Compares windows with a reference.

    Args:
        reference: Rows, shape (n, features); of more than 1000 rows so many are drawn, once.
        permutations: How often the rows are dealt anew; the smallest p-value is 1 / (permutations + 1).
        random: Draws and deals.
    """

    def __init__(self, reference: NDArray[Any], permutations: int, random: np.random.Generator) -> None:
        if len(reference) > _MAX_REFERENCE:
            reference = reference[random.choice(len(reference), _MAX_REFERENCE, replace=False)]
        self._mean = reference.mean(axis=0)
        self._scale = _scale(reference)
        self._reference = (reference - self._mean) / self._scale
        self._distances = _squared_distances(self._reference, self._reference)
        upper = self._distances[np.triu_indices(len(reference), 1)]
        median = float(np.median(upper))
        self._width = median if median > 0 else 1.0
        self._permutations = permutations
        self._random = random

    def test(self, window: NDArray[Any]) -> tuple[float, float]:
        """Gives the p-value and the estimate of the squared discrepancy, which may be below 0.

        Args:
            window: Rows, shape (m, features), m > 1.
        """
        rows = (window - self._mean) / self._scale
        across = _squared_distances(self._reference, rows)
        kernel = np.block([[self._distances, across], [across.T, _squared_distances(rows, rows)]])
        np.exp(kernel / -self._width, out=kernel)
        np.fill_diagonal(kernel, 0.0)  # the unbiased estimate leaves a row's likeness with itself out
        first, second = len(self._reference), len(rows)
        member = np.zeros((1 + self._permutations, first + second))
        member[0, first:] = 1.0
        order = np.tile(member[0], (self._permutations, 1))
        member[1:] = self._random.permuted(order, axis=1)
        with_second = member @ kernel
        within_second = (with_second * member).sum(axis=1)
        between = with_second.sum(axis=1) - within_second
        within_first = kernel.sum() - within_second - 2 * between
        estimates = (
            within_first / (first * (first - 1))
            + within_second / (second * (second - 1))
            - 2 * between / (first * second)
        )
        reached = np.count_nonzero(estimates[1:] >= estimates[0])
        return (1 + reached) / (1 + self._permutations), float(estimates[0])


def _scale(rows: NDArray[Any]) -> NDArray[Any]:
    scale: NDArray[Any] = rows.std(axis=0)
    return np.where(scale > 0, scale, 1.0)


def _squared_distances(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    products: NDArray[Any] = -2.0 * first @ second.T
    products += (first**2).sum(axis=1)[:, None]
    products += (second**2).sum(axis=1)[None, :]
    np.maximum(products, 0.0, out=products)  # what rounding has made negative
    return products
