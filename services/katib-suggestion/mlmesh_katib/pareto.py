"""Several objectives at once: which outcomes no other one beats, and how they are spread.

K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
Transactions on Evolutionary Computation 6 (2002). Smaller is better in all objectives.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256
"""Rows of the matrix of all pairs that are held at a time."""


def pareto_front(losses: Sequence[Sequence[float]], violations: Sequence[float] = ()) -> list[int]:
    """Finds the outcomes that no other one dominates: the best trials of an experiment with several objectives.

    Args:
        losses: Of each trial, all objectives.
        violations: Of each trial, of the constraints; empty: all keep them. Those that do not are never on the front.

    Returns:
        The places of the trials in `losses`, ascending; of trials with the same losses all.
    """
    kept = [place for place in range(len(losses)) if not violations or violations[place] <= 0]
    if not kept:
        return []
    first = next(iter(fronts([losses[place] for place in kept], enough=1)))
    return sorted(kept[place] for place in first)


def fronts(
    losses: Sequence[Sequence[float]], violations: Sequence[float] = (), *, enough: int | None = None
) -> list[list[int]]:
    """Sorts outcomes into fronts: the first is dominated by none, the second by the first only, and so on.

    Constrained domination: what keeps the constraints dominates what does not; of two that do not, the one that
    violates them less dominates.

    Args:
        losses: Of each trial, all objectives.
        violations: Of each trial, of the constraints; empty: all keep them.
        enough: As soon as so many are in fronts, the rest is left out; None: all are sorted.
    """
    count = len(losses)
    if not count:
        return []
    points = np.asarray(losses, dtype=float).reshape(count, -1)
    broken = np.asarray(violations, dtype=float) if len(violations) else np.zeros(count)
    beaten = np.zeros(count, dtype=int)
    for start in range(0, count, _BLOCK):
        beaten += _dominate(points, broken, np.arange(start, min(start + _BLOCK, count))).sum(axis=0)
    found: list[list[int]] = []
    left = np.ones(count, dtype=bool)
    sorted_ = 0
    while left.any() and (enough is None or sorted_ < enough):
        front = np.flatnonzero(left & (beaten == 0))
        found.append(front.tolist())
        sorted_ += len(front)
        left[front] = False
        for start in range(0, len(front), _BLOCK):
            beaten -= _dominate(points, broken, front[start : start + _BLOCK]).sum(axis=0)
    return found


def _dominate(points: NDArray[np.float64], broken: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tells of each of some trials and each of all, (rows, n), whether the former dominates the latter."""
    no_worse = np.ones((len(rows), len(points)), dtype=bool)
    better = np.zeros((len(rows), len(points)), dtype=bool)
    for column in points.T:
        no_worse &= column[rows, np.newaxis] <= column
        better |= column[rows, np.newaxis] < column
    mine, theirs = broken[rows, np.newaxis], broken
    both_keep = (mine <= 0) & (theirs <= 0)
    found: NDArray[np.bool_] = np.where(both_keep, no_worse & better, mine < theirs)
    return found


def crowding(losses: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Gives the crowding distances of the outcomes of one front.

    Args:
        losses: Of each trial, all objectives.

    Returns:
        (n,): how far apart the neighbours are, in parts of each objective's range, summed up; infinite at the ends.
    """
    points = np.asarray(losses, dtype=float).reshape(len(losses), -1)
    distances = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        scaled = column[order] / max(1.0, float(np.abs(column).max()))  # the difference of huge numbers may be infinite
        width = scaled[-1] - scaled[0]
        distances[order[[0, -1]]] = np.inf
        if width > 0 and len(points) > 2:
            distances[order[1:-1]] += (scaled[2:] - scaled[:-2]) / width
    return distances


def hypervolume(losses: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Measures the area that outcomes of two objectives dominate: E. Zitzler, L. Thiele (1998).

    Args:
        losses: Two of each trial.
        reference: The corner that bounds the area; what is not better than it in both objectives adds nothing.
    """
    if len(reference) != 2:
        raise ValueError("the hypervolume is measured for two objectives")
    inside = sorted((x, y) for x, y in losses if x < reference[0] and y < reference[1])
    area, top = 0.0, reference[1]
    for x, y in inside:
        if y < top:
            area += (reference[0] - x) * (top - y)
            top = y
    return area
