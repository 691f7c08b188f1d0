"""How unusual an instance is, as a number: the larger the more."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TREES = 100


class Score(ABC):
    """A score that is fitted on rows, shape (n, features), and then judges rows of as many features."""

    @abstractmethod
    def fit(self, rows: NDArray[Any]) -> None:
        """Learns what is usual."""

    @abstractmethod
    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Gives the scores, shape (m,)."""


class Mahalanobis(Score):
    """Distance from the mean in units of the covariance, squared.

    The covariance is shrunk, so that it can be inverted whatever the number of features (Ledoit, Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", 2004).
    """

    def fit(self, rows: NDArray[Any]) -> None:
        """See Score."""
        from sklearn.covariance import LedoitWolf

        scale = rows.std(axis=0)
        self._scale = np.where(scale > 0, scale, 1.0)
        self._fitted = LedoitWolf().fit(rows / self._scale)

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """See Score."""
        distances: NDArray[Any] = self._fitted.mahalanobis(rows / self._scale)
        return distances


class IsolationForest(Score):
    """How few random cuts set an instance apart (Liu, Ting, Zhou, "Isolation forest", ICDM 2008)."""

    def fit(self, rows: NDArray[Any]) -> None:
        """See Score."""
        from sklearn.ensemble import IsolationForest as Forest

        self._forest = Forest(n_estimators=_TREES, random_state=0).fit(rows)

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """See Score."""
        scores: NDArray[Any] = -self._forest.score_samples(rows)
        return scores


class NearestNeighbors(Score):
    """Distance to the k-th nearest neighbour (Ramaswamy, Rastogi, Shim, "Efficient algorithms for mining outliers from
    large data sets", SIGMOD 2000), features scaled to one standard deviation.

    Args:
        neighbors: k.
    """

    def __init__(self, neighbors: int) -> None:
        self._neighbors = neighbors

    def fit(self, rows: NDArray[Any]) -> None:
        """See Score."""
        from scipy.spatial import cKDTree

        scale = rows.std(axis=0)
        self._scale = np.where(scale > 0, scale, 1.0)
        self._kth = [min(self._neighbors, len(rows))]
        self._tree = cKDTree(rows / self._scale)

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """See Score."""
        distances, _ = self._tree.query(rows / self._scale, k=self._kth)
        farthest: NDArray[Any] = distances[:, 0]
        return farthest
