"""The space as a unit cube, for algorithms that work with numbers: each parameter is a coordinate from 0 to 1."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlmesh_katib.algorithms.normal import cumulative, quantile
from mlmesh_katib.space import Distribution, Kind, Parameter, Space, Value

_NORMAL = {Distribution.NORMAL, Distribution.LOG_NORMAL}
_DEVIATIONS = 3.0


def to_unit(space: Space, points: Sequence[Sequence[Value]]) -> NDArray[np.float64]:
    """Gives points as coordinates.

    Args:
        space: Where they are.
        points: n points.

    Returns:
        (n, number of parameters). Values that are few (lists, whole numbers, steps) are in the middle of cells of equal
        width; others are where their distribution has them, so that a uniform draw of coordinates follows it.
    """
    units = np.empty((len(points), len(space.parameters)))
    for index, parameter in enumerate(space.parameters):
        units[:, index] = _to(parameter, [point[index] for point in points])
    return units


def from_unit(space: Space, coordinates: NDArray[np.float64]) -> list[tuple[Value, ...]]:
    """Gives the points that coordinates stand for; the other way round of `to_unit`.

    Args:
        space: Where they are.
        coordinates: (n, number of parameters), from 0 to 1.
    """
    return [
        tuple(_from(parameter, float(u)) for parameter, u in zip(space.parameters, row, strict=True))
        for row in coordinates
    ]


def cells(parameter: Parameter) -> int | None:
    """Gives the number of cells of equal width that a parameter's coordinate has; None: it is continuous."""
    if parameter.is_list or parameter.low == parameter.high or parameter.distribution is Distribution.UNIFORM:
        return parameter.count() if parameter.low != parameter.high or parameter.is_list else 1
    return None


def _to(parameter: Parameter, values: Sequence[Value]) -> NDArray[np.float64]:
    if parameter.is_list:
        index = {choice: number for number, choice in enumerate(parameter.choices)}
        return (np.array([index[value] for value in values], dtype=float) + 0.5) / len(parameter.choices)
    numbers = np.array(values, dtype=float)
    low, high = _ends(parameter)
    if low == high:  # a single value, or orders of magnitude that floating point numbers cannot tell apart
        return np.full(len(values), 0.5)
    count = cells(parameter)
    if count is not None:
        units: NDArray[np.float64] = (np.rint((numbers - parameter.low) / (parameter.step or 1.0)) + 0.5) / count
    else:
        units = ((np.log(numbers) if parameter.distribution.is_log else numbers) - low) / (high - low)
        if parameter.distribution in _NORMAL:
            units = cumulative((units * 2 - 1) * _DEVIATIONS)
    return np.clip(units, 0.0, 1.0)


def _from(parameter: Parameter, unit: float) -> Value:
    count = cells(parameter)
    if count is not None:
        return parameter.at(min(max(int(unit * count), 0), count - 1))
    if parameter.distribution in _NORMAL:
        unit = min(max((float(quantile(min(max(unit, 1e-9), 1 - 1e-9))) / _DEVIATIONS + 1) / 2, 0.0), 1.0)
    low, high = _ends(parameter)
    inner = low + unit * (high - low)
    number = math.exp(inner) if parameter.distribution.is_log else inner
    number = min(max(number, parameter.low), parameter.high)
    if parameter.step is not None:
        return parameter.at(min(round((number - parameter.low) / parameter.step), (parameter.count() or 1) - 1))
    return round(number) if parameter.kind is Kind.INT else number


def _ends(parameter: Parameter) -> tuple[float, float]:
    low, high = parameter.low, parameter.high
    if parameter.distribution.is_log:
        low, high = math.log(low), math.log(high)
    if parameter.kind is Kind.INT and parameter.step is None and not parameter.distribution.is_log:
        low, high = low - 0.5, high + 0.5
    return low, high
