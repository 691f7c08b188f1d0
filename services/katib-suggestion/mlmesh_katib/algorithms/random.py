"""Random search: J. Bergstra, Y. Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13 (2012)."""

import math

import numpy as np

from mlmesh_katib.algorithms.base import Algorithm, Question, check_settings, generator
from mlmesh_katib.space import Distribution, Kind, Parameter, Space, Value

# Of a space that is smaller than this, the points that are left are listed; of a larger one they are guessed.
_LISTED = 100_000
_GUESSES = 200


class RandomSearch(Algorithm):
    """Independent draws, no point twice."""

    name = "random"
    is_multi_objective = True
    reads_results = False
    ignores_prior = True

    def validate(self, question: Question) -> None:
        """See Algorithm."""
        check_settings(question.settings, ("random_state",), self.name)

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm."""
        tried = {trial.point for trial in question.trials}
        return draw_new(question.space, generator(question.settings, question.made), tried, count)


def draw_new(
    space: Space, random: np.random.Generator, tried: set[tuple[Value, ...]], count: int
) -> list[tuple[Value, ...]]:
    """Draws points that are not in `tried` (to which they are added); fewer where there are no more."""
    points: list[tuple[Value, ...]] = []
    size = space.size()
    guesses = count * _GUESSES
    while len(points) < count and guesses and (size is None or len(tried) < size):
        guesses -= 1
        point = space.canonical(tuple(sample(parameter, random) for parameter in space.parameters))
        if point not in tried:
            tried.add(point)
            points.append(point)
    if len(points) < count and size is not None and size <= _LISTED:
        left = [point for point in space.points() if point not in tried]
        for index in random.permutation(len(left))[: count - len(points)]:
            tried.add(left[index])
            points.append(left[index])
    return points


def sample(parameter: Parameter, random: np.random.Generator) -> Value:
    """Draws a value by the parameter's distribution."""
    if parameter.is_list:
        return parameter.choices[int(random.integers(len(parameter.choices)))]
    low, high = parameter.low, parameter.high
    if parameter.distribution.is_log:
        low, high = math.log(low), math.log(high)
    if parameter.distribution in {Distribution.NORMAL, Distribution.LOG_NORMAL}:
        # As Katib: the middle is the mean, and six standard deviations are the range.
        number = float(np.clip(random.normal((low + high) / 2, (high - low) / 6), low, high))
    elif parameter.kind is Kind.INT and not parameter.distribution.is_log and parameter.step is None:
        return int(random.integers(int(low), int(high), endpoint=True))
    else:
        number = float(random.uniform(low, high))
    if parameter.distribution.is_log:
        number = math.exp(number)
    number = min(max(number, parameter.low), parameter.high)
    if parameter.step is not None:
        steps = parameter.count() or 1
        if parameter.distribution is Distribution.UNIFORM:
            return parameter.at(int(random.integers(steps)))
        return parameter.at(min(round((number - parameter.low) / parameter.step), steps - 1))
    return round(number) if parameter.kind is Kind.INT else number
