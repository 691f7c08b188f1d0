"""The space as a unit cube, for algorithms that work with numbers: each parameter is a coordinate from 0 to 1."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

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
    columns = [[_to(parameter, point[index]) for point in points] for index, parameter in enumerate(space.parameters)]
    return np.array(columns, dtype=float).reshape(len(space.parameters), len(points)).T


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


def _to(parameter: Parameter, value: Value) -> float:
    if parameter.is_list:
        return (parameter.choices.index(value) + 0.5) / len(parameter.choices)
    if parameter.low == parameter.high:
        return 0.5
    if _is_cells(parameter):
        step = parameter.step or 1.0
        return (round((float(value) - parameter.low) / step) + 0.5) / (parameter.count() or 1)
    low, high = _ends(parameter)
    inner = math.log(float(value)) if parameter.distribution.is_log else float(value)
    unit = (inner - low) / (high - low)
    if parameter.distribution in _NORMAL:
        unit = float(ndtr((unit * 2 - 1) * _DEVIATIONS))
    return min(max(unit, 0.0), 1.0)


def _from(parameter: Parameter, unit: float) -> Value:
    count = parameter.count()
    if parameter.is_list or _is_cells(parameter):
        count = count or 1
        return parameter.at(min(max(int(unit * count), 0), count - 1))
    if parameter.distribution in _NORMAL:
        unit = min(max((float(ndtri(min(max(unit, 1e-9), 1 - 1e-9))) / _DEVIATIONS + 1) / 2, 0.0), 1.0)
    low, high = _ends(parameter)
    inner = low + unit * (high - low)
    number = math.exp(inner) if parameter.distribution.is_log else inner
    number = min(max(number, parameter.low), parameter.high)
    if parameter.step is not None:
        return parameter.at(min(round((number - parameter.low) / parameter.step), (count or 1) - 1))
    return round(number) if parameter.kind is Kind.INT else number


def _is_cells(parameter: Parameter) -> bool:
    """Tells whether a number's values are cells of equal width: few, and as likely as each other."""
    return parameter.distribution is Distribution.UNIFORM and parameter.count() is not None


def _ends(parameter: Parameter) -> tuple[float, float]:
    low, high = parameter.low, parameter.high
    if parameter.distribution.is_log:
        low, high = math.log(low), math.log(high)
    if parameter.kind is Kind.INT and parameter.step is None and not parameter.distribution.is_log:
        low, high = low - 0.5, high + 0.5
    return low, high
