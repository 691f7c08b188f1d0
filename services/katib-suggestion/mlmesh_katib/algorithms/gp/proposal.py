"""Where the expected improvement is largest: by candidates, by gradients and, where there are cells, by neighbours."""

import numpy as np
from numpy.typing import NDArray

from mlmesh_katib.algorithms.gp.acquisition import log_improvement, log_improvement_slopes
from mlmesh_katib.algorithms.gp.axes import Axes
from mlmesh_katib.algorithms.gp.model import Posterior

Array = NDArray[np.float64]

_CANDIDATES = 1000
_NEAR = 400
_WIDTHS = (0.2, 0.05, 0.01, 0.001)
_STARTS = 6
_STEPS = 40
_CHOICES = 20
"""Categories that are tried in turn; of more, as many at random."""
_ROUNDS = 3


def propose(
    axes: Axes, posterior: Posterior, best: float, known: Array, losses: Array, random: np.random.Generator
) -> Array:
    """Gives points by falling improvement.

    Args:
        axes: Of the space.
        posterior: What is believed.
        best: The value to be improved on.
        known: (n, d), the points that are known.
        losses: (n,), their values.
        random: Where candidates come from.

    Returns:
        (m, d), feasible, the most promising first; they may be known.
    """
    candidates = axes.snap(np.vstack([_spread(axes, random), _around(axes, known, losses, random)]))
    values = log_improvement(posterior, best, candidates)
    starts = candidates[_distinct(candidates, values)]
    polished = _polish(axes, posterior, best, starts)
    pool = axes.snap(polished)
    for _ in range(_ROUNDS):
        moved = _neighbours(axes, posterior, best, pool, random)
        if np.array_equal(moved, pool):
            break
        pool = _polish(axes, posterior, best, moved, fixed=~axes.free)
    found = axes.settle(np.vstack([pool, starts, candidates[np.argsort(-values, kind="stable")[:_NEAR]]]))
    order = np.argsort(-log_improvement(posterior, best, found), kind="stable")
    return found[order]


def _spread(axes: Axes, random: np.random.Generator) -> Array:
    return random.random((_CANDIDATES, len(axes.counts)))


def _around(axes: Axes, known: Array, losses: Array, random: np.random.Generator) -> Array:
    """Gives points near the best ones: all coordinates moved a little, or some of them anew."""
    dimensions = known.shape[1]
    top = known[np.argsort(losses, kind="stable")[:5]]
    chosen = top[np.minimum(random.geometric(0.5, _NEAR) - 1, len(top) - 1)]
    widths = random.choice(_WIDTHS, size=(_NEAR, 1))
    moved = chosen + widths * random.standard_normal((_NEAR, dimensions))
    moved = np.abs(np.where(moved > 1.0, 2.0 - moved, moved))
    some = random.random((_NEAR, dimensions)) < np.maximum(1.0 / dimensions, random.random((_NEAR, 1)))
    cells = ~axes.free
    anew = some & cells & (random.random((_NEAR, dimensions)) < 0.5)
    points = np.where(some, moved, chosen)
    return np.clip(np.where(anew, random.random((_NEAR, dimensions)), points), 0.0, 1.0)


def _distinct(candidates: Array, values: Array) -> NDArray[np.int64]:
    """Chooses where to climb from: the best, then those that are best far from the chosen ones."""
    order = np.argsort(-values, kind="stable")[:200]
    chosen = [int(order[0])]
    for wanted in (0.1, 0.02):
        for index in order[1:]:
            if len(chosen) == _STARTS:
                break
            apart = np.abs(candidates[chosen] - candidates[index]).max(axis=1).min()
            if apart > wanted:
                chosen.append(int(index))
    return np.array(chosen)


def _polish(
    axes: Axes, posterior: Posterior, best: float, starts: Array, fixed: NDArray[np.bool_] | None = None
) -> Array:
    """Climbs from (m, d) points, all at once: their gradients do not mix. Coordinates that are `fixed` stay."""
    from scipy.optimize import minimize

    held = axes.categorical if fixed is None else fixed
    if held.all():
        return starts
    moving = ~held

    def fall(flat: Array) -> tuple[float, Array]:
        points = starts.copy()
        points[:, moving] = flat.reshape(len(starts), -1)
        value, slope = log_improvement_slopes(posterior, best, points)
        return -float(value.sum()), -slope[:, moving].ravel()

    begin = starts[:, moving].ravel()
    found = minimize(
        fall, begin, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(begin), options={"maxiter": _STEPS}
    )
    climbed = starts.copy()
    climbed[:, moving] = found.x.reshape(len(starts), -1)
    better = log_improvement(posterior, best, climbed) >= log_improvement(posterior, best, starts)
    return np.where(better[:, None], climbed, starts)


def _neighbours(axes: Axes, posterior: Posterior, best: float, points: Array, random: np.random.Generator) -> Array:
    """Moves points cell by cell, one coordinate after the other, to where the improvement is larger."""
    current = points.copy()
    for axis in np.flatnonzero(~axes.free & (axes.counts > 1)):
        count = int(axes.counts[axis])
        if axes.categorical[axis]:
            choices = np.arange(count) if count <= _CHOICES else random.choice(count, _CHOICES, replace=False)
            cells = np.broadcast_to(choices, (len(current), len(choices)))
        else:
            at = np.floor(current[:, axis] * count).astype(int)
            cells = np.clip(at[:, None] + np.array([-2, -1, 1, 2]), 0, count - 1)
        tried = np.repeat(current[:, None, :], cells.shape[1], axis=1)
        tried[:, :, axis] = (cells + 0.5) / count
        values = log_improvement(posterior, best, tried.reshape(-1, current.shape[1])).reshape(cells.shape)
        top = values.argmax(axis=1)
        rows = np.arange(len(current))
        better = values[rows, top] > log_improvement(posterior, best, current) + 1e-9
        current[better] = tried[rows, top][better]
    return current
