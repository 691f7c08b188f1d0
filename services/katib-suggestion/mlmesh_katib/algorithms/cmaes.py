"""CMA-ES under Katib's name and settings, by the package `cmaes`.

N. Hansen, "The CMA Evolution Strategy: A Tutorial" (2016); restarts: A. Auger, N. Hansen, "A Restart CMA Evolution
Strategy With Increasing Population Size", CEC 2005 (ipop), N. Hansen, "Benchmarking a BI-Population CMA-ES on the
BBOB-2009 Function Testbed" (bipop). The state of the search is replayed from the trials at each call.
"""

import math
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlmesh_kit.errors import InvalidArgument
from numpy.typing import NDArray

from mlmesh_katib.algorithms.base import Algorithm, Answer, Question, Suggestion, check_settings, generator, real_number
from mlmesh_katib.algorithms.random import draw_new, sample
from mlmesh_katib.algorithms.unit import from_unit, to_unit
from mlmesh_katib.space import Kind, Space, Value

GENERATION = "mlmesh.cmaes/generation"
"""Label of a trial: which generation it was drawn for."""

_SIGMA = 1 / 6
_LARGEST_SIGMA = 1e6
_GUESSES = 20
_STRATEGIES = ("none", "None", "ipop", "bipop")


class CmaEs(Algorithm):
    """Evolves a normal distribution over the numbers; what is listed is drawn at random."""

    name = "cmaes"

    def load(self) -> None:
        """See Algorithm."""
        import cmaes  # noqa: F401

    def validate(self, question: Question) -> None:
        """See Algorithm. `sigma` is in units of a parameter's range."""
        settings = question.settings
        check_settings(settings, ("restart_strategy", "sigma", "random_state"), self.name)
        strategy = settings.get("restart_strategy", "none")
        if strategy not in _STRATEGIES:
            raise InvalidArgument(
                f"restart_strategy {strategy} is not supported in CMAES optimization",
                field="algorithmSettings.restart_strategy",
            )
        if "sigma" in settings and not 0 < real_number(settings, "sigma") <= _LARGEST_SIGMA:
            raise InvalidArgument(
                f"sigma should be great than zero, at most {_LARGEST_SIGMA:g}", field="algorithmSettings.sigma"
            )
        if len(_numeric(question.space)) < 2:
            raise InvalidArgument(
                "cmaes only supports two or more dimensional continuous search space.", field="parameters"
            )

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm."""
        return [point for point, _ in self._next(question, count)]

    def answer(self, question: Question, count: int) -> Answer:
        """See Algorithm; labels each trial with its generation."""
        names = [parameter.name for parameter in question.space.parameters]
        return Answer(
            [
                Suggestion(
                    dict(zip(names, question.space.key(point), strict=True)), labels={GENERATION: str(generation)}
                )
                for point, generation in self._next(question, count)
            ]
        )

    def _next(self, question: Question, count: int) -> list[tuple[tuple[Value, ...], int]]:
        space, random = question.space, generator(question.settings, question.made)
        tried = {trial.point for trial in question.trials}
        size = space.size()
        numeric = _numeric(space)
        inner = Space(tuple(space.parameters[index] for index in numeric))
        search = _replay(question, inner, numeric, int(random.integers(2**31)))
        points: list[tuple[Value, ...]] = []
        guesses = count * _GUESSES
        while len(points) < count and guesses and (size is None or len(tried) < size):
            guesses -= 1
            (numbers,) = from_unit(inner, search.ask()[np.newaxis])
            chosen = dict(zip(numeric, numbers, strict=True))
            point = tuple(
                chosen[index] if index in chosen else sample(parameter, random)
                for index, parameter in enumerate(space.parameters)
            )
            if point not in tried:
                tried.add(point)
                points.append(point)
        points += draw_new(space, random, tried, count - len(points))  # the distribution has shrunk to what was tried
        return [(point, search.generation) for point in points]


def _numeric(space: Space) -> list[int]:
    return [index for index, p in enumerate(space.parameters) if p.kind in {Kind.DOUBLE, Kind.INT}]


def _replay(question: Question, inner: Space, numeric: list[int], seed: int) -> "_Search":
    """Tells a new search all generations that are complete.

    A trial without a label of a generation (of an earlier experiment, or after labels were lost) goes to the first that
    has room.
    """
    finished = [trial for trial in (*question.prior, *question.trials) if trial.loss is not None]
    units = to_unit(inner, [[trial.point[index] for index in numeric] for trial in finished])
    labelled: dict[int, deque[tuple[NDArray[np.float64], float]]] = defaultdict(deque)
    others: deque[tuple[NDArray[np.float64], float]] = deque()
    for number, (trial, unit) in enumerate(zip(finished, units, strict=True)):
        label = trial.labels.get(GENERATION, "") if number >= len(question.prior) else ""
        (labelled[int(label)] if label.isdecimal() else others).append((unit, float(trial.loss or 0.0)))
    search = _Search(len(numeric), question.settings, seed)
    while True:
        generation = labelled[search.generation]
        missing = max(0, search.population - len(generation))
        if missing > len(others):
            return search
        batch = [*generation, *(others.popleft() for _ in range(missing))]
        search.tell(batch[: search.population])


class _Search:
    """A CMA-ES with its restarts.

    Args:
        dimensions: How many numbers.
        settings: The algorithm's.
        seed: Of what `ask` draws; where a restart begins does not depend on it.
    """

    def __init__(self, dimensions: int, settings: Mapping[str, str], seed: int) -> None:
        self._dimensions = dimensions
        self._sigma = float(settings.get("sigma", _SIGMA))
        self._strategy = settings.get("restart_strategy", "none")
        self._seed = seed
        self._restarts = np.random.default_rng([int(settings.get("random_state", "0")), dimensions])
        self._smallest = 4 + math.floor(3 * math.log(dimensions))
        self._largest = self._smallest
        self._small = False
        self._spent = {True: 0, False: 0}
        self.generation = 0
        self._begin(self._smallest, self._sigma, np.full(dimensions, 0.5))

    @property
    def population(self) -> int:
        """How many trials make a generation."""
        return int(self._cma.population_size)

    def ask(self) -> NDArray[np.float64]:
        """Draws coordinates, (dimensions,)."""
        drawn: NDArray[np.float64] = self._cma.ask()
        return drawn

    def tell(self, batch: list[tuple[NDArray[np.float64], float]]) -> None:
        """Ends a generation: coordinates and losses, as many as `population`."""
        self._cma.tell(batch)
        self.generation += 1
        self._spent[self._small] += len(batch)
        if self._strategy in {"ipop", "bipop"} and self._cma.should_stop():
            self._restart()

    def _restart(self) -> None:
        mean = self._restarts.random(self._dimensions)
        self._small = self._strategy == "bipop" and self._spent[True] < self._spent[False]
        if self._small:
            share, spread = self._restarts.random(2)
            population = math.floor(self._smallest * (self._largest / self._smallest / 2) ** (share**2))
            self._begin(max(population, self._smallest), self._sigma * 10 ** (-2 * spread), mean)
        else:
            self._largest *= 2
            self._begin(self._largest, self._sigma, mean)

    def _begin(self, population: int, sigma: float, mean: NDArray[np.float64]) -> None:
        import cmaes  # only when it is needed

        bounds = np.tile([0.0, 1.0], (self._dimensions, 1))
        self._cma: Any = cmaes.CMA(
            mean=mean, sigma=sigma, bounds=bounds, seed=self._seed + self.generation, population_size=population
        )
