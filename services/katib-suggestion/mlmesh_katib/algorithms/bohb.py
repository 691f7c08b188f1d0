"""BOHB: S. Falkner, A. Klein, F. Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018.

The model is a kernel density over all parameters for each amount of the resource, of which that with the most resource
counts that has enough results. The kernels are those of `multivariate-tpe`; the amounts are handed out asynchronously,
as by `asha`, where the paper has Hyperband's brackets.
"""

import math
from collections.abc import Mapping

import numpy as np
from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.asha import Asha, _View
from mlmesh_katib.algorithms.base import Question, generator, real_number, whole_number
from mlmesh_katib.algorithms.parzen import ParzenEstimator
from mlmesh_katib.algorithms.random import draw_new
from mlmesh_katib.algorithms.unit import cells, from_unit, to_unit
from mlmesh_katib.space import Kind, Value

_DEFAULTS = {"top_n_percent": "15", "num_samples": "64", "random_fraction": "0.3333333333333333"}
_PRIOR_WEIGHT = 1.0


class Bohb(Asha):
    """Successive halving of points that a model of the earlier ones chooses."""

    name = "bohb"

    def _own_settings(self) -> tuple[str, ...]:
        return (*_DEFAULTS, "min_points_in_model")

    def _check_sampling(self, question: Question, settings: Mapping[str, str]) -> None:
        given = {**_DEFAULTS, **settings}
        whole_number(given, "top_n_percent", smallest=1, largest=99)
        whole_number(given, "num_samples", smallest=1, largest=10_000)
        if not 0 <= real_number(given, "random_fraction") <= 1:
            raise InvalidArgument(
                "random_fraction should be in the range of [0, 1]", field="algorithmSettings.random_fraction"
            )
        if "min_points_in_model" in given:
            whole_number(given, "min_points_in_model", smallest=1, largest=10_000)

    def _enough(self, view: _View, settings: Mapping[str, str]) -> int:
        return _least(len(view.inner.parameters), settings) + 2

    def _sample(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """Draws by the model, and a share of them at random. What runs counts as bad: others look elsewhere."""
        space, settings = question.space, {**_DEFAULTS, **question.settings}
        random = generator(settings, question.made)
        tried = {trial.point for trial in question.trials}
        known = [trial for trial in (*question.prior, *question.trials) if trial.loss is not None]
        least = _least(len(space.parameters), settings)
        points: list[tuple[Value, ...]] = []
        if len(known) < least + 2:
            return draw_new(space, random, tried, count)
        ranked = sorted(known, key=lambda trial: trial.loss or 0.0)
        share = math.ceil(len(ranked) * int(settings["top_n_percent"]) / 100)
        good = ranked[: max(least, share)]
        bad = ranked[-max(least, len(ranked) - len(good)) :]
        running = [trial.point for trial in question.trials if trial.running]
        columns = [cells(parameter) for parameter in space.parameters]
        words = [parameter.kind is Kind.CATEGORICAL for parameter in space.parameters]
        dense = ParzenEstimator(to_unit(space, [trial.point for trial in good]), columns, words, _PRIOR_WEIGHT)
        size = space.size()
        while len(points) < count and (size is None or len(tried) < size):
            new: list[tuple[Value, ...]] = []
            if random.random() >= float(settings["random_fraction"]):
                others = to_unit(space, [trial.point for trial in bad] + running + points)
                sparse = ParzenEstimator(others, columns, words, _PRIOR_WEIGHT)
                drawn = dense.sample(random, int(settings["num_samples"]))
                order = np.argsort(sparse.log_density(drawn) - dense.log_density(drawn), kind="stable")
                candidates = (from_unit(space, row[np.newaxis])[0] for row in drawn[order])
                new = [point for point in candidates if point not in tried][:1]
            new = new or draw_new(space, random, tried, 1)
            if not new:
                break
            tried.update(new)
            points += new
        return points


def _least(dimensions: int, settings: Mapping[str, str]) -> int:
    """Gives how many results each of the two densities has at least."""
    return int(settings.get("min_points_in_model", dimensions + 1))
