"""Probabilities of classes, as scikit-learn gives them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def of_classes(result: NDArray[Any]) -> NDArray[Any]:
    """Gives a column for each class; of two classes libraries give the probability of the second alone."""
    return np.column_stack([1 - result, result]) if result.ndim == 1 else result
