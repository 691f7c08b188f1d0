"""A density over the unit cube made of one kernel for each observation, and a flat one: what TPE compares."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlmesh_katib.algorithms.normal import cumulative, quantile

_FULL_WEIGHTS = 25
_TINY = 1e-300
_ROOT = np.sqrt(2 * np.pi)


class ParzenEstimator:
    """A mixture of truncated normal distributions, and of weighted choices where a coordinate is a category.

    Args:
        units: The observations, (n, dimensions), in the order in which they were made: old ones weigh less.
        cells: Of each dimension, its number of cells of equal width; None: continuous.
        categorical: Of each dimension, whether its cells have no order.
        prior_weight: Of the flat kernel.
    """

    def __init__(
        self,
        units: NDArray[np.float64],
        cells: Sequence[int | None],
        categorical: Sequence[bool],
        prior_weight: float,
    ) -> None:
        self._cells = cells
        self._categorical = categorical
        count, dimensions = units.shape
        self._kernels = count + 1
        weights = np.ones(self._kernels)
        if count > _FULL_WEIGHTS:
            weights[: count - _FULL_WEIGHTS] = np.linspace(1 / count, 1.0, count - _FULL_WEIGHTS)
        weights[-1] = prior_weight
        self._weights = weights / weights.sum()
        self._means = np.vstack([units, np.full(dimensions, 0.5)])
        self._widths = [_widths(units[:, index]) for index in range(dimensions)]
        self._smoothing = prior_weight / self._kernels
        if dimensions == 1 and cells[0] and not categorical[0]:
            self._merge()

    def _merge(self) -> None:
        """Makes one kernel of equal ones: in few cells, most are."""
        pairs = self._means[:, 0] + 1j * self._widths[0]
        unlike, which = np.unique(pairs, return_inverse=True)
        self._weights = np.bincount(which, self._weights)
        self._means, self._widths = unlike.real[:, np.newaxis], [unlike.imag]
        self._kernels = len(unlike)

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Draws coordinates, (count, dimensions)."""
        chosen = np.searchsorted(np.cumsum(self._weights)[:-1], random.random(count), side="right")
        drawn = np.empty((count, len(self._cells)))
        for index, cells in enumerate(self._cells):
            uniform = random.random(count)
            mean, width = self._means[chosen, index], self._widths[index][chosen]
            if self._categorical[index] and cells:
                # A category is the kernel's own, or, by the smoothing, any.
                flat = (chosen == self._kernels - 1) | (
                    uniform < self._smoothing * cells / (1 + self._smoothing * cells)
                )
                drawn[:, index] = np.where(flat, (random.integers(cells, size=count) + 0.5) / cells, mean)
                continue
            low, high = cumulative(-mean / width), cumulative((1 - mean) / width)
            values = np.clip(mean + width * quantile(low + uniform * (high - low)), 0.0, 1.0)
            drawn[:, index] = (np.minimum(np.floor(values * cells), cells - 1) + 0.5) / cells if cells else values
        return drawn

    def log_density(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gives the logarithm of the density at coordinates, (m, dimensions) → (m,)."""
        total = np.broadcast_to(np.log(self._weights), (len(units), self._kernels)).copy()
        for index, cells in enumerate(self._cells):
            at, mean, width = units[:, index, np.newaxis], self._means[:, index], self._widths[index]
            if self._categorical[index] and cells:
                total += self._log_category(at, mean, cells)
                continue
            mass = cumulative((1 - mean) / width) - cumulative(-mean / width)
            if cells and 1 / cells > 1e-3:  # finer ones are as good as continuous
                half = 0.5 / cells
                inside = cumulative((at + half - mean) / width) - cumulative((at - half - mean) / width)
                total += np.log(np.maximum(inside, _TINY) / mass)
            else:
                total += -0.5 * ((at - mean) / width) ** 2 - np.log(_ROOT * width * mass)
        highest = total.max(axis=1)
        density: NDArray[np.float64] = highest + np.log(np.exp(total - highest[:, np.newaxis]).sum(axis=1))
        return density

    def _log_category(self, at: NDArray[np.float64], mean: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
        same = np.floor(at * cells) == np.floor(mean * cells)
        whole = 1 + self._smoothing * cells
        log: NDArray[np.float64] = np.where(
            same, np.log((1 + self._smoothing) / whole), np.log(self._smoothing / whole)
        )
        log[:, -1] = -np.log(cells)
        return log


def _widths(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gives bandwidths: of each observation the distance to its farther neighbour; last, that of the flat kernel."""
    count = len(means)
    widths = np.ones(count + 1)
    order = np.argsort(means, kind="stable")
    edges = np.concatenate([[0.0], means[order], [1.0]])
    gaps = np.diff(edges)
    farther = np.maximum(gaps[:-1], gaps[1:])
    if count > 1:  # the ends of the range are no neighbours
        farther[0], farther[-1] = gaps[1], gaps[-2]
    widths[order] = np.clip(farther, 1 / min(100, 2 + count), 1.0)
    return widths
