"""How values are looked at: a scale on which a Gaussian process explains them well.

E. Snelson, C. E. Rasmussen, Z. Ghahramani, "Warped Gaussian Processes", NIPS 2003; that objectives of real models need
it is shown by A. I. Cowen-Rivers et al., "HEBO: Pushing The Limits of Sample-Efficient Hyperparameter Optimisation",
JAIR 74 (2022).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SHIFTS = (0.3, 0.03, 0.003)
"""Of the logarithm, in parts of the distance from the best value to the median."""
_FAR = 1e12


@dataclass(frozen=True, slots=True)
class Warp:
    """One way to look at values.

    Attributes:
        values: (n,), mean 0 and standard deviation 1.
        log_jacobian: Logarithm of how much it stretches the values, all together: likelihoods are compared with it.
    """

    values: Array
    log_jacobian: float


def warps(values: Array) -> Iterator[Warp]:
    """Gives the ways to look at (n,) values: as they are, and by their logarithms above the best one.

    Values beyond what floating point numbers can be squared with are cut off.
    """
    plain = _scaled(values)
    yield _standard(plain, np.zeros_like(plain))
    middle = float(np.median(plain))
    if middle > 0 and len(values) > 3:
        for shift in _SHIFTS:
            inner = plain + shift * middle
            yield _standard(np.log(inner), -np.log(inner))


def _scaled(values: Array) -> Array:
    """Gives values above the best one, in units of their spread."""
    scale = max(abs(float(values.min())), abs(float(values.max())), 1e-300)
    inner = values / scale
    inner = inner - inner.min()
    ordered = np.sort(inner)
    spread = float(ordered[(3 * len(ordered)) // 4]) or float(ordered[-1]) or 1.0
    scaled: Array = np.minimum(inner / spread, _FAR)
    return scaled


def _standard(warped: Array, log_slopes: Array) -> Warp:
    deviation = float(warped.std()) or 1.0
    jacobian = float(log_slopes.sum()) - len(warped) * float(np.log(deviation))
    return Warp((warped - warped.mean()) / deviation, jacobian)
