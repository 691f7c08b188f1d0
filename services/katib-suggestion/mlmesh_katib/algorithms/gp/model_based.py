"""Points by the model of what is known.

Trials that run are taken to give what the model expects: D. Ginsbourger, R. Le Riche, L. Carraro, "Kriging Is
Well-Suited to Parallelize Optimization" (2010).
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from mlmesh_katib.algorithms.base import Observed, Question
from mlmesh_katib.algorithms.gp.axes import Axes, axes_of
from mlmesh_katib.algorithms.gp.model import Parameters, Posterior, first_guesses, fit
from mlmesh_katib.algorithms.gp.proposal import propose
from mlmesh_katib.algorithms.gp.warp import warps
from mlmesh_katib.algorithms.unit import from_unit, to_unit
from mlmesh_katib.space import Value

Array = NDArray[np.float64]

_MAX_OBSERVED = 1000
"""Trials that the model is made of; of more, the best and the latest."""
_EXACT = 150
"""Up to as many trials the kernel's parameters are sought with all of them."""
_FIRST_STEPS, _WARP_STEPS, _LAST_STEPS = 30, 10, 30
_APART = 0.01
"""How far a point is from those of trials that run, in some coordinate of the unit cube: where the model believes in
noise it would ask for the same point again, whose value is about to be known."""


def modelled(
    question: Question,
    random: np.random.Generator,
    known: Sequence[Observed],
    added: Sequence[tuple[Value, ...]],
    tried: set[tuple[Value, ...]],
    count: int,
) -> list[tuple[Value, ...]]:
    """Gives the points at which the model expects the largest improvement, one after another.

    Args:
        question: What is asked.
        random: Where candidates come from.
        known: All trials, those of earlier experiments too; one at least has a loss.
        added: Points that are suggested besides.
        tried: Points that are not suggested; what is found is added.
        count: How many; fewer are found where the model proposes what was tried.
    """
    space = question.space
    axes = axes_of(space)
    observed, losses = _observations(known)
    units = to_unit(space, observed)
    posterior, values = _believe(axes, units, losses)
    waiting = to_unit(space, [trial.point for trial in known if trial.running] + list(added))
    if len(waiting):
        posterior = posterior.believing(waiting)
    points: list[tuple[Value, ...]] = []
    for _ in range(count):
        best = float(posterior.at(units)[0].min())
        proposed = propose(axes, posterior, best, units, values, random)
        point = _first_new(from_unit(space, proposed), _distances(proposed, waiting), tried)
        if point is None:
            break
        tried.add(point)
        points.append(point)
        if len(points) < count:
            unit = to_unit(space, [point])
            waiting = np.vstack([waiting, unit])
            posterior = posterior.believing(unit)
    return points


def _distances(points: Array, waiting: Array) -> Array:
    """Gives how far (m, d) points are from the nearest of (k, d) others, by the coordinate that differs most."""
    nearest = np.full(len(points), np.inf)
    for other in waiting:
        np.minimum(nearest, np.abs(points - other).max(axis=1), out=nearest)
    return nearest


def _first_new(
    points: Sequence[tuple[Value, ...]], distances: Array, tried: set[tuple[Value, ...]]
) -> tuple[Value, ...] | None:
    """Gives the first point that was not tried and is apart from those that wait; failing that, any not tried."""
    new = [(point, distance) for point, distance in zip(points, distances, strict=True) if point not in tried]
    return next((point for point, distance in new if distance > _APART), new[0][0] if new else None)


def _observations(known: Sequence[Observed]) -> tuple[list[tuple[Value, ...]], Array]:
    """Gives the points and losses that the model is made of; a trial that failed is as bad as the worst one."""
    finished = [trial for trial in known if trial.loss is not None or not trial.running]
    worst = max(trial.loss for trial in finished if trial.loss is not None)
    losses = np.array([worst if trial.loss is None else trial.loss for trial in finished], dtype=float)
    if len(finished) > _MAX_OBSERVED:
        latest = np.arange(len(finished) - _MAX_OBSERVED // 2, len(finished))
        best = np.argsort(losses[: latest[0]], kind="stable")[: _MAX_OBSERVED - len(latest)]
        chosen = np.concatenate([np.sort(best), latest])
        return [finished[index].point for index in chosen], losses[chosen]
    return [trial.point for trial in finished], losses


def _believe(axes: Axes, units: Array, losses: Array) -> tuple[Posterior, Array]:
    """Fits the model on the scale of the losses that explains them best; gives it and the losses on that scale."""
    few = _few(losses)
    some = units[few]

    def best_fit(values: Array, starts: Iterable[Array], steps: int) -> tuple[Array, float]:
        fits = [fit(some, values[few], axes.categorical, start, steps) for start in starts]
        return min(fits, key=itemgetter(1))

    # What varies may be the function or noise: each explanation is a minimum of its own.
    guesses = first_guesses(units.shape[1])
    start = guesses[0]
    chosen: tuple[float, Array, Array] | None = None
    for number, warp in enumerate(warps(losses)):
        if number == 0:
            theta, improbable = best_fit(warp.values, guesses, _FIRST_STEPS)
            start = theta
        else:
            theta, improbable = best_fit(warp.values, [start], _WARP_STEPS)
        score = improbable - warp.log_jacobian * len(few) / len(losses)
        if chosen is None or score < chosen[0]:
            chosen = (score, theta, warp.values)
    assert chosen is not None
    _, theta, values = chosen
    theta, _ = best_fit(values, [theta, *guesses], _LAST_STEPS)
    return Posterior(units, values, axes.categorical, Parameters(theta)), values


def _few(losses: Array) -> NDArray[np.int64]:
    """Chooses the trials that the kernel's parameters are sought with: the best half, and every so many of the rest."""
    if len(losses) <= _EXACT:
        return np.arange(len(losses))
    order = np.argsort(losses, kind="stable")
    rest = order[_EXACT // 2 :]
    return np.sort(np.concatenate([order[: _EXACT // 2], rest[np.linspace(0, len(rest) - 1, _EXACT // 2, dtype=int)]]))
