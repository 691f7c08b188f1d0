"""NSGA-II: trials that have proved good are crossed and mutated, for any number of objectives.

K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
Transactions on Evolutionary Computation 6 (2002). In the steady state: parents are chosen among all that has ended,
without waiting for a generation to be complete (J. J. Durillo, A. J. Nebro, F. Luna, E. Alba, "On the Effect of the
Steady-State Selection Scheme in Multi-Objective Genetic Algorithms", EMO 2009).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from mlmesh_kit.errors import InvalidArgument
from numpy.typing import NDArray

from mlmesh_katib.algorithms.base import (
    Algorithm,
    Observed,
    Question,
    check_settings,
    generator,
    real_number,
    whole_number,
)
from mlmesh_katib.algorithms.random import draw_new
from mlmesh_katib.algorithms.unit import cells, from_unit, to_unit
from mlmesh_katib.pareto import crowding, fronts
from mlmesh_katib.space import Kind, Space, Value

_DEFAULTS = {"population_size": "20", "crossover_prob": "0.9", "crossover_eta": "20", "mutation_eta": "20"}
_GUESSES = 30
_SWAP = 0.5
"""How likely two parents swap a category, or cross a number."""


class Nsga2(Algorithm):
    """Evolves the trials that no others dominate."""

    name = "nsga2"
    is_multi_objective = True
    knows_constraints = True

    def validate(self, question: Question) -> None:
        """See Algorithm; `mutation_prob` is one over the number of parameters if it is not given."""
        settings = question.settings
        check_settings(settings, (*_DEFAULTS, "mutation_prob", "random_state"), self.name)
        given = {**_DEFAULTS, **settings}
        whole_number(given, "population_size", smallest=2, largest=10_000)
        for name in ("crossover_prob", "mutation_prob"):
            if name in given and not 0 <= real_number(given, name) <= 1:
                raise InvalidArgument(f"{name} should be in the range of [0, 1]", field=f"algorithmSettings.{name}")
        for name in ("crossover_eta", "mutation_eta"):
            if not 0 < real_number(given, name) <= 1000:
                message = f"{name} should be great than zero, at most 1000"
                raise InvalidArgument(message, field=f"algorithmSettings.{name}")

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm. The first generation is drawn at random; trials of earlier experiments belong to it."""
        space, settings = question.space, {**_DEFAULTS, **question.settings}
        random = generator(settings, question.made)
        tried = {trial.point for trial in question.trials}
        known = [trial for trial in (*question.prior, *question.trials) if _outcome(trial, question.objectives)]
        size = int(settings["population_size"])
        begun = len(known) + sum(trial.running for trial in question.trials)
        missing = max(0, size - begun) if len(known) > 1 else count
        points = draw_new(space, random, tried, min(count, missing))
        if len(points) == count or len(known) < 2:
            return points
        chosen, ranks, distances = _survivors(known, question.objectives, size)
        units = to_unit(space, [trial.point for trial in chosen])
        breeding = _Breeding(space, settings, random)
        all_points = space.size()
        for _ in range(_GUESSES * (count - len(points))):
            if len(points) == count or (all_points is not None and len(tried) >= all_points):
                break
            one, other = (_tournament(ranks, distances, random) for _ in range(2))
            for point in from_unit(space, breeding.children(units[one], units[other])):
                if point not in tried and len(points) < count:
                    tried.add(point)
                    points.append(point)
        return points + draw_new(space, random, tried, count - len(points))


def _outcome(trial: Observed, objectives: int) -> tuple[float, ...]:
    """Gives the losses of a trial; empty where one is missing."""
    if trial.loss is None:
        return ()
    losses = trial.losses or (trial.loss,)
    return losses if len(losses) == objectives else ()


def _survivors(
    known: Sequence[Observed], objectives: int, size: int
) -> tuple[list[Observed], NDArray[np.int_], NDArray[np.float64]]:
    """Gives the best trials, with the numbers of their fronts and their crowding distances."""
    losses = [_outcome(trial, objectives) for trial in known]
    chosen: list[int] = []
    ranks: list[int] = []
    distances: list[float] = []
    for rank, front in enumerate(fronts(losses, [trial.violation for trial in known], enough=size)):
        apart = crowding([losses[place] for place in front])
        order = np.argsort(-apart, kind="stable")[: size - len(chosen)]  # the last front gives its least crowded
        chosen += [front[index] for index in order]
        ranks += [rank] * len(order)
        distances += apart[order].tolist()
    return [known[place] for place in chosen], np.array(ranks), np.array(distances)


def _tournament(ranks: NDArray[np.int_], distances: NDArray[np.float64], random: np.random.Generator) -> int:
    """Draws two trials and gives the place of the better: of the earlier front, or the less crowded."""
    one, other = (int(place) for place in random.integers(len(ranks), size=2))
    if ranks[one] != ranks[other]:
        return one if ranks[one] < ranks[other] else other
    return one if distances[one] >= distances[other] else other


class _Breeding:
    """Crosses and mutates coordinates of the unit cube.

    Numbers by simulated binary crossover (K. Deb, R. B. Agrawal, 1995) and polynomial mutation (K. Deb, M. Goyal,
    1996), both within the bounds; categories by uniform crossover, and mutation into any.

    Args:
        space: Where the points are.
        settings: Of the algorithm, complete.
        random: The source of randomness.
    """

    def __init__(self, space: Space, settings: Mapping[str, str], random: np.random.Generator) -> None:
        self._random = random
        self._counts = [cells(parameter) or 1 for parameter in space.parameters]
        self._words = np.array([parameter.kind is Kind.CATEGORICAL for parameter in space.parameters])
        self._cross = float(settings["crossover_prob"])
        self._mutate = float(settings.get("mutation_prob", 1 / len(space.parameters)))
        self._cross_eta, self._mutate_eta = float(settings["crossover_eta"]), float(settings["mutation_eta"])

    def children(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gives two children, (2, number of parameters)."""
        pair = np.stack([one, other])
        if self._random.random() < self._cross:
            crossed = self._random.random(len(one)) < _SWAP
            numbers = crossed & ~self._words & (np.abs(one - other) > 1e-12)
            pair[:, numbers] = self._sbx(one[numbers], other[numbers])
            swapped = crossed & self._words
            pair[:, swapped] = np.stack([other[swapped], one[swapped]])
        for child in pair:
            mutated = self._random.random(len(one)) < self._mutate
            child[mutated & ~self._words] = self._polynomial(child[mutated & ~self._words])
            for place in np.flatnonzero(mutated & self._words):
                child[place] = (self._random.integers(self._counts[place]) + 0.5) / self._counts[place]
        return pair

    def _sbx(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = np.minimum(one, other), np.maximum(one, other)
        power = 1 / (self._cross_eta + 1)
        uniform = self._random.random(len(one))
        spread = []
        for room in (low, 1 - high):  # to the bound of either side
            alpha = 2 - (1 + 2 * room / (high - low)) ** -(self._cross_eta + 1)
            scaled = uniform * alpha
            spread.append(np.where(scaled <= 1, scaled, 1 / np.maximum(2 - scaled, 1e-12)) ** power)
        middle, half = (low + high) / 2, (high - low) / 2
        pair = np.stack([middle - spread[0] * half, middle + spread[1] * half])
        turned = self._random.random(len(one)) < _SWAP
        pair[:, turned] = pair[::-1, turned]
        inside: NDArray[np.float64] = np.clip(pair, 0.0, 1.0)
        return inside

    def _polynomial(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        uniform, eta = self._random.random(len(values)), self._mutate_eta + 1
        down = (2 * uniform + (1 - 2 * uniform) * (1 - values) ** eta) ** (1 / eta) - 1
        up = 1 - (2 * (1 - uniform) + (2 * uniform - 1) * values**eta) ** (1 / eta)
        moved: NDArray[np.float64] = np.clip(values + np.where(uniform <= 0.5, down, up), 0.0, 1.0)
        return moved
