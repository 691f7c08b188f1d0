"""Gradient boosting that tells its uncertainty, for scikit-optimize; loads scikit-learn.

J. H. Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics 29 (2001), with the
quantile loss. scikit-optimize 0.10 has the same model, which needs NumPy before 2.4 and scikit-learn before 1.7.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import GradientBoostingRegressor

_TREES = 30
_QUANTILES = (0.16, 0.5, 0.84)
"""Of a normal distribution, the mean and one standard deviation to either side."""


class QuantileBoosting(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Three models, one for each quantile.

    Args:
        random_state: Seed; of all three, so that their trees are alike.
    """

    def __init__(self, random_state: int | None = None) -> None:
        self.random_state = random_state

    def fit(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> Self:
        """Learns from points, (n, dimensions), and their losses, (n,)."""
        self.models_ = [
            GradientBoostingRegressor(
                loss="quantile", alpha=quantile, n_estimators=_TREES, random_state=self.random_state
            ).fit(x, y)
            for quantile in _QUANTILES
        ]
        return self

    def predict(self, x: NDArray[np.float64], return_std: bool = False) -> Any:
        """Gives the medians for points, (n, dimensions) → (n,); with `return_std`, the deviations as well."""
        low, middle, high = (model.predict(x) for model in self.models_)
        return (middle, np.maximum(high - low, 0.0) / 2) if return_std else middle
