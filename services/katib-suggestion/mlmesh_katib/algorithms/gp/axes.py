"""What kinds of coordinates a space has in the unit cube."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmesh_katib.algorithms.unit import cells, from_unit, to_unit
from mlmesh_katib.space import Kind, Space

Array = NDArray[np.float64]

_CELLS = 100
"""A number with more values than this is looked at as if it were continuous, and rounded in the end."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The coordinates of a space.

    Attributes:
        space: The space.
        counts: (d,) number of cells of equal width; 0: continuous.
        categorical: (d,) whether the cells have no order.
    """

    space: Space
    counts: NDArray[np.int64]
    categorical: NDArray[np.bool_]

    @property
    def free(self) -> NDArray[np.bool_]:
        """(d,) which coordinates are continuous."""
        found: NDArray[np.bool_] = self.counts == 0
        return found

    def snap(self, points: Array) -> Array:
        """Puts coordinates into the middle of their cells.

        Args:
            points: (n, d).
        """
        cell = np.clip(np.floor(points * self.counts), 0, np.maximum(self.counts - 1, 0))
        snapped: Array = np.where(self.free, points, (cell + 0.5) / np.maximum(self.counts, 1))
        return snapped

    def settle(self, points: Array) -> Array:
        """Gives the coordinates of the feasible points that coordinates stand for.

        Args:
            points: (n, d).
        """
        return to_unit(self.space, from_unit(self.space, points))


def axes_of(space: Space) -> Axes:
    """Looks at a space."""
    counts, categorical = [], []
    for parameter in space.parameters:
        unordered = parameter.kind is Kind.CATEGORICAL
        count = cells(parameter) or 0
        counts.append(count if unordered or count <= _CELLS else 0)
        categorical.append(unordered)
    return Axes(space, np.array(counts, dtype=np.int64), np.array(categorical, dtype=bool))
