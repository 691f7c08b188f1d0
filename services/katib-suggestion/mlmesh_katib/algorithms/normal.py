"""The standard normal distribution. SciPy is loaded when it is needed: it takes a fifth of the service's start."""

from typing import Any


def cumulative(values: Any) -> Any:
    """Gives the probability of a value not above these (floats or an array of them)."""
    from scipy.special import ndtr

    return ndtr(values)


def quantile(probabilities: Any) -> Any:
    """Gives the values that are not exceeded with these probabilities; the other way round of `cumulative`."""
    from scipy.special import ndtri

    return ndtri(probabilities)
