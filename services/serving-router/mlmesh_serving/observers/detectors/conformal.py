"""From scores to outliers at a known rate of false alarms, whatever the distribution.

One half of the reference fits the score, the other says how it is distributed among the usual. An instance's p-value is
its rank there, and p <= level for at most that share of usual instances (split conformal inference; Laxhammar, Falkman,
"Conformal prediction for distribution-independent anomaly detection in streaming vessel data", 2010; Bates, Candès,
Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023).
"""

import math
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition
from numpy.typing import NDArray

from mlmesh_serving.observers.detectors.scores import Score


class ConformalTest:
    """Judges instances.

    Args:
        score: How unusual they are; is fitted here.
        reference: Usual rows, shape (n, features).
        level: Share of false alarms among usual instances.
        random: Halves the reference.

    Raises:
        FailedPrecondition: The reference is too small to tell so rare an outlier.
    """

    def __init__(self, score: Score, reference: NDArray[Any], level: float, random: np.random.Generator) -> None:
        order = random.permutation(len(reference))
        half = len(reference) // 2
        if (half + 1) * level < 1:
            least = 2 * (math.ceil(1 / level) - 1)
            raise FailedPrecondition(f"a rate of {level} needs a reference of at least {least} rows, got {len(order)}")
        score.fit(reference[order[half:]])
        self._score = score
        self._usual = np.sort(score(reference[order[:half]]))

    def p_values(self, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Gives the p-values and the scores of rows, both of shape (m,)."""
        scores = self._score(rows)
        reached = len(self._usual) - np.searchsorted(self._usual, scores, side="left")
        return (1 + reached) / (1 + len(self._usual)), scores
