"""Tree-structured Parzen estimator, under Katib's names, settings and defaults; in NumPy, for its speed.

J. Bergstra, R. Bardenet, Y. Bengio, B. Kégl, "Algorithms for Hyper-Parameter Optimization", NIPS 2011; several
parameters at once: S. Falkner, A. Klein, F. Hutter, "BOHB", ICML 2018; bandwidths, weights and defaults as in
S. Watanabe, "Tree-Structured Parzen Estimator: Understanding Its Algorithm Components" (2023).
"""

import math

import numpy as np
from mlmesh_kit.errors import InvalidArgument
from numpy.typing import NDArray

from mlmesh_katib.algorithms.base import Algorithm, Question, check_settings, generator, real_number, whole_number
from mlmesh_katib.algorithms.parzen import ParzenEstimator
from mlmesh_katib.algorithms.random import draw_new
from mlmesh_katib.algorithms.unit import cells, from_unit, to_unit
from mlmesh_katib.space import Kind, Space, Value

_MOST_GOOD = 25
_SHARE_OF_GOOD = 0.1


class Tpe(Algorithm):
    """Looks where good trials are dense and others are not, one parameter at a time."""

    name = "tpe"
    _is_joint = False

    def validate(self, question: Question) -> None:
        """See Algorithm; `gamma`, `prior_weight` and `n_EI_candidates` are those of Katib's Hyperopt service."""
        settings = question.settings
        known = ("n_startup_trials", "n_ei_candidates", "random_state", "gamma", "prior_weight", "n_EI_candidates")
        check_settings(settings, known, self.name)
        for name, smallest in (("n_startup_trials", 0), ("n_ei_candidates", 0), ("n_EI_candidates", 1)):
            if name in settings:
                whole_number(settings, name, smallest=smallest, largest=10_000)
        if "gamma" in settings and not 0 < real_number(settings, "gamma") < 1:
            raise InvalidArgument("gamma should be in the range of (0, 1)", field="algorithmSettings.gamma")
        if "prior_weight" in settings and not 0 < real_number(settings, "prior_weight") <= 1e6:
            message = "prior_weight should be great than zero, at most 1e6"
            raise InvalidArgument(message, field="algorithmSettings.prior_weight")

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm. Trials that run, and those suggested with them, count as bad: others look elsewhere."""
        space, settings = question.space, question.settings
        random = generator(settings, question.made)
        tried = {trial.point for trial in question.trials}
        known = [trial for trial in (*question.prior, *question.trials) if trial.loss is not None]
        lies = [trial.point for trial in question.trials if trial.running and trial.loss is None]
        startup = int(settings.get("n_startup_trials", "10"))
        missing = max(0, startup - len(known) - len(lies)) if known else count
        points = draw_new(space, random, tried, min(count, missing))
        if not known:
            return points
        units = to_unit(space, [trial.point for trial in known] + lies + points)
        order = np.argsort([float(trial.loss or 0.0) for trial in known], kind="stable")
        good = np.sort(order[: _good(len(known), settings.get("gamma"))])
        size = space.size()
        while len(points) < count and (size is None or len(tried) < size):
            bad = np.ones(len(units), dtype=bool)
            bad[good] = False
            proposed = self._propose(space, question, units[good], units[bad], random)
            candidates = (from_unit(space, row[np.newaxis])[0] for row in proposed)
            point = next((candidate for candidate in candidates if candidate not in tried), None)
            new = draw_new(space, random, tried, 1) if point is None else [point]
            if not new:
                break
            tried.update(new)
            points += new
            units = np.vstack([units, to_unit(space, new)])
        return points

    def _propose(
        self,
        space: Space,
        question: Question,
        good: NDArray[np.float64],
        bad: NDArray[np.float64],
        random: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Gives candidates, (n, number of parameters), the most promising first."""
        settings = question.settings
        candidates = max(1, int(settings.get("n_ei_candidates", settings.get("n_EI_candidates", "24"))))
        weight = float(settings.get("prior_weight", "1"))
        counts = [cells(parameter) for parameter in space.parameters]
        listed = [parameter.kind is Kind.CATEGORICAL for parameter in space.parameters]
        everything = list(range(len(counts)))
        ranked = np.empty((candidates, len(counts)))
        for columns in [everything] if self._is_joint else [[index] for index in everything]:
            widths, words = [counts[index] for index in columns], [listed[index] for index in columns]
            dense = ParzenEstimator(good[:, columns], widths, words, weight)
            sparse = ParzenEstimator(bad[:, columns], widths, words, weight)
            drawn = dense.sample(random, candidates)
            if self._is_joint:
                gain = dense.log_density(drawn) - sparse.log_density(drawn)
            else:  # of a short list, many are the same
                unlike, like = np.unique(drawn.ravel(), return_inverse=True)
                unlike = unlike[:, np.newaxis]
                gain = (dense.log_density(unlike) - sparse.log_density(unlike))[like]
            ranked[:, columns] = drawn[np.argsort(-gain, kind="stable")]
        return ranked


class MultivariateTpe(Tpe):
    """Looks where good trials are dense and others are not, all parameters together."""

    name = "multivariate-tpe"
    _is_joint = True


def _good(count: int, gamma: str | None) -> int:
    """Gives how many of the finished trials count as good: Optuna's rule, or Hyperopt's where `gamma` is given."""
    wanted = math.ceil(_SHARE_OF_GOOD * count) if gamma is None else math.ceil(float(gamma) * math.sqrt(count))
    return min(wanted, _MOST_GOOD)
