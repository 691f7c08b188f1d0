"""A Gaussian process: C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning" (2006).

The kernel is Matérn 5/2 with a length scale for each coordinate; where coordinates have no order, distances are 0 or 1.
Its parameters are the most probable ones given the data. The priors of length scales and of the variance are those that
Optuna documents for its GPSampler: a penalty 0.1 w + 0.1 / w of the inverse squares w of the length scales (a
generalised inverse Gaussian distribution), and a Gamma(2, 1) distribution of the variance.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.linalg.lapack import dpotri

Array = NDArray[np.float64]

_ROOT5 = math.sqrt(5.0)
_SCALE_PENALTY = 0.1
_NOISE_CENTRE, _NOISE_SPREAD = math.log(1e-5), 2.0
"""Log-normal: real objectives have some noise, and with next to none the model believes what cannot be."""
_JITTER = 1e-9
BOUNDS_SCALE = (math.log(5e-3), math.log(1e3))
BOUNDS_VARIANCE = (math.log(1e-2), math.log(1e3))
BOUNDS_NOISE = (math.log(1e-7), math.log(1.0))
_WORST = 1e25
_MAX_CELLS = 20_000_000
"""Of squared differences that are kept while the parameters are sought: 160 MB."""


def differences(left: Array, right: Array, categorical: NDArray[np.bool_]) -> Array:
    """Gives (d, n, m) squared differences of (n, d) and (m, d) coordinates; 0 or 1 for those without an order."""
    found: Array = left.T[:, :, None] - right.T[:, None, :]
    found *= found
    if categorical.any():
        found[categorical] = found[categorical] > 1e-12
    return found


def matern(squares: Array) -> tuple[Array, Array]:
    """Gives the correlation, and what its derivatives share, of squared distances.

    Args:
        squares: Squared distances, scaled.

    Returns:
        k and g, of the same shape, with dk/d(squares) = -g / 2.
    """
    root = np.sqrt(5.0 * squares)
    decay = np.exp(-root)
    shared = (5.0 / 3.0) * (1.0 + root) * decay
    return (1.0 + root + (5.0 / 3.0) * squares) * decay, shared


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of the kernel, as logarithms: (d,) length scales, variance, noise."""

    theta: Array

    @property
    def inverse_squares(self) -> Array:
        """(d,) one by the squares of the length scales."""
        found: Array = np.exp(-2.0 * self.theta[:-2])
        return found

    @property
    def variance(self) -> float:
        """Of the function."""
        return math.exp(self.theta[-2])

    @property
    def noise(self) -> float:
        """Variance of what is added to the function's values."""
        return math.exp(self.theta[-1])


def first_guesses(dimensions: int) -> list[Array]:
    """Gives (d + 2,) logarithms to begin with: what is probable before there are data, and the same with more noise."""
    return [np.array([0.0] * dimensions + [0.0, noise]) for noise in (_NOISE_CENTRE, math.log(1e-2))]


class Likelihood:
    """How improbable data are, as a function of the kernel's parameters.

    Args:
        points: (n, d) coordinates.
        categorical: (d,) which have no order.
    """

    def __init__(self, points: Array, categorical: NDArray[np.bool_]) -> None:
        self._squares = differences(points, points, categorical)
        self._count = len(points)

    def __call__(self, theta: Array, values: Array) -> tuple[float, Array]:
        """Gives the negative logarithm of likelihood times priors, and its gradient.

        Args:
            theta: (d + 2,), see Parameters.
            values: (n,), standardised.
        """
        parameters = Parameters(theta)
        count = self._count
        squares = np.tensordot(parameters.inverse_squares, self._squares, axes=1)
        correlation, shared = matern(squares)
        covariance = parameters.variance * correlation
        covariance.flat[:: count + 1] += parameters.noise + _JITTER
        try:
            factor, _ = cho_factor(covariance, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return _WORST, np.zeros_like(theta)
        inverse, failed = dpotri(factor, lower=1)
        if failed or not np.isfinite(inverse).all():
            return _WORST, np.zeros_like(theta)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        mean = _mean(inverse.sum(axis=1), values)
        weights = inverse @ (values - mean)
        loss = 0.5 * float((values - mean) @ weights) + float(np.log(np.diag(factor)).sum()) + 0.5 * mean**2
        outer = np.outer(weights, weights) - inverse  # twice the gradient by the covariance, negative
        gradient = np.empty_like(theta)
        weighted = outer * shared
        # d covariance / d log scale = variance * shared * difference / scale²
        gradient[:-2] = (
            -0.5
            * parameters.variance
            * parameters.inverse_squares
            * np.tensordot(self._squares, weighted, axes=([1, 2], [0, 1]))
        )
        gradient[-2] = -0.5 * parameters.variance * float((outer * correlation).sum())
        gradient[-1] = -0.5 * parameters.noise * float(np.trace(outer))
        prior, slope = _prior(theta)
        return loss + prior, gradient + slope


def _prior(theta: Array) -> tuple[float, Array]:
    """Gives the negative logarithm of the priors' density, and its gradient."""
    slope = np.empty_like(theta)
    inverse = np.exp(-2.0 * theta[:-2])
    loss = _SCALE_PENALTY * float((inverse + 1.0 / inverse).sum())
    slope[:-2] = 2.0 * _SCALE_PENALTY * (1.0 / inverse - inverse)
    variance = math.exp(theta[-2])
    loss += variance - float(theta[-2])
    slope[-2] = variance - 1.0
    noise = (float(theta[-1]) - _NOISE_CENTRE) / _NOISE_SPREAD
    loss += noise**2 / 2.0
    slope[-1] = noise / _NOISE_SPREAD
    return loss, slope


def _mean(sums: Array, values: Array) -> float:
    """Gives the most probable mean, given the sums of the inverse's rows; before there are data it is about 0."""
    return float(sums @ values) / (float(sums.sum()) + 1.0)


def fit(points: Array, values: Array, categorical: NDArray[np.bool_], start: Array, steps: int) -> tuple[Array, float]:
    """Finds the most probable parameters.

    Args:
        points: (n, d); of too many, the first ones are looked at.
        values: (n,), standardised.
        categorical: (d,).
        start: (d + 2,), where to begin.
        steps: Most steps.

    Returns:
        The parameters (d + 2,), and how improbable the data are with them.
    """
    from scipy.optimize import minimize

    most = max(20, math.isqrt(_MAX_CELLS // points.shape[1]))
    likelihood = Likelihood(points[:most], categorical)
    bounds = [BOUNDS_SCALE] * points.shape[1] + [BOUNDS_VARIANCE, BOUNDS_NOISE]
    low, high = np.array(bounds).T
    found = minimize(
        likelihood,
        np.clip(start, low, high),
        args=(values[:most],),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": steps, "maxfun": 2 * steps},
    )
    return np.asarray(found.x), float(found.fun)


class Posterior:
    """What is believed of the function.

    Args:
        points: (n, d).
        values: (n,), standardised.
        categorical: (d,).
        parameters: Of the kernel.
    """

    def __init__(self, points: Array, values: Array, categorical: NDArray[np.bool_], parameters: Parameters) -> None:
        self._points = points
        self._values = values
        self._categorical = categorical
        self._scales = np.sqrt(parameters.inverse_squares)
        self._parameters = parameters
        self._prepared = self._prepare(points)
        covariance = parameters.variance * matern(self._squares(self._prepared))[0]
        jitter = _JITTER
        while True:
            raised = covariance.copy()
            raised.flat[:: len(points) + 1] += parameters.noise + jitter
            try:
                self._factor = cho_factor(raised, lower=True, check_finite=False)
                break
            except np.linalg.LinAlgError:
                jitter = max(jitter, 1e-9) * 10
        sums = cho_solve(self._factor, np.ones(len(points)), check_finite=False)
        self.mean = _mean(sums, values)
        self._weights = cho_solve(self._factor, values - self.mean, check_finite=False)

    def _prepare(self, points: Array) -> Array:
        return points * self._scales

    def _squares(self, prepared: Array) -> Array:
        """Gives (m, n) squared distances to the data."""
        ordered = ~self._categorical
        left, right = prepared[:, ordered], self._prepared[:, ordered]
        squares: Array = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2.0 * left @ right.T
        for axis in np.flatnonzero(self._categorical):
            differs = np.abs(prepared[:, axis, None] - self._prepared[None, :, axis]) > 1e-12 * self._scales[axis]
            squares += differs * self._scales[axis] ** 2
        return np.maximum(squares, 0.0)

    def at(self, points: Array) -> tuple[Array, Array]:
        """Gives mean and standard deviation of the function at (m, d) points, (m,) each."""
        correlation, _ = matern(self._squares(self._prepare(points)))
        cross = self._parameters.variance * correlation
        half = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        variance = self._parameters.variance - (half**2).sum(axis=0)
        return self.mean + cross @ self._weights, np.sqrt(np.maximum(variance, 1e-12))

    def slopes(self, points: Array) -> tuple[Array, Array, Array, Array]:
        """Gives mean and standard deviation, (m,), and their gradients, (m, d); 0 where coordinates have no order."""
        prepared = self._prepare(points)
        correlation, shared = matern(self._squares(prepared))
        cross = self._parameters.variance * correlation
        solved = cho_solve(self._factor, cross.T, check_finite=False)
        mean = self.mean + cross @ self._weights
        variance = np.maximum(self._parameters.variance - (cross * solved.T).sum(axis=1), 1e-12)
        deviation = np.sqrt(variance)
        # d cross[i, j] / d point[i, a] = -variance * shared[i, j] * (point[i, a] - data[j, a]) / scale[a]²
        pull = self._parameters.variance * shared

        def along(weights: Array) -> Array:
            product = pull * weights
            slope: Array = -(product.sum(axis=1)[:, None] * prepared - product @ self._prepared) * self._scales
            slope[:, self._categorical] = 0.0
            return slope

        return mean, deviation, along(self._weights[None, :]), -along(solved.T) / deviation[:, None]

    def believing(self, points: Array) -> "Posterior":
        """Gives the posterior as if at (m, d) points the mean had been observed, so that others look elsewhere."""
        values = np.append(self._values, self.at(points)[0])
        return Posterior(np.vstack([self._points, points]), values, self._categorical, self._parameters)
