"""The logarithm of the expected improvement, and its gradient.

J. Močkus, "On Bayesian Methods for Seeking the Extremum" (1974); in logarithms, that it has a slope everywhere, by
S. Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization", NeurIPS 2023.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr

from mlmesh_katib.algorithms.gp.model import Posterior

Array = NDArray[np.float64]

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
_ROOT_HALF_PI = math.sqrt(math.pi / 2)
_FAR = -1e3


def log_improvement(posterior: Posterior, best: float, points: Array) -> Array:
    """Gives log EI below `best` at (m, d) points."""
    mean, deviation = posterior.at(points)
    return _log_h((best - mean) / deviation)[0] + np.log(deviation)


def log_improvement_slopes(posterior: Posterior, best: float, points: Array) -> tuple[Array, Array]:
    """Gives log EI below `best` at (m, d) points, (m,), and its gradient, (m, d)."""
    mean, deviation, mean_slope, deviation_slope = posterior.slopes(points)
    z = (best - mean) / deviation
    value, ratio = _log_h(z)
    z_slope = -(mean_slope + z[:, None] * deviation_slope) / deviation[:, None]
    slope = ratio[:, None] * z_slope + deviation_slope / deviation[:, None]
    return value + np.log(deviation), slope


def _log_h(z: Array) -> tuple[Array, Array]:
    """Gives log(phi(z) + z Phi(z)) and its derivative Phi(z) / (phi(z) + z Phi(z))."""
    log_density = -0.5 * z**2 - _LOG_ROOT_2PI
    near = z > -1.0
    inside = np.where(near, z, 0.0)
    plain = np.exp(-0.5 * inside**2 - _LOG_ROOT_2PI) + inside * np.exp(log_ndtr(inside))
    below = np.minimum(z, -1.0)
    # Phi(z) / phi(z), which does not vanish; 1 + z times it does, and is told by its series where it is too small.
    mills = _ROOT_HALF_PI * erfcx(-below / math.sqrt(2))
    left = np.where(below > _FAR, 1.0 + below * mills, 0.0)
    left = np.where((below > _FAR) & (left > 1e-12), left, 1.0 / below**2 - 3.0 / below**4)
    value = np.where(near, np.log(np.maximum(plain, 1e-300)), log_density + np.log(left))
    ratio = np.where(near, np.exp(log_ndtr(inside)) / np.maximum(plain, 1e-300), mills / left)
    return value, ratio
