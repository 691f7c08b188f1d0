"""The space as a unit cube: there and back again."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mlmesh_katib.algorithms.unit import cells, from_unit, to_unit
from mlmesh_katib.space import Parameter, Space
from mlmesh_kit.errors import InvalidArgument
from unit.katib.algorithm_needs import feasible, listed, made

DISTRIBUTIONS = ["", "uniform", "logUniform", "normal", "logNormal"]


@st.composite
def ranges(draw: st.DrawFn) -> Parameter:
    kind, distribution = draw(st.sampled_from(["double", "int"])), draw(st.sampled_from(DISTRIBUTIONS))
    if kind == "int":
        low, high = sorted((draw(st.integers(-(2**53), 2**53)), draw(st.integers(-(2**53), 2**53))))
        step = draw(st.none() | st.integers(1, 1000))
    else:
        bound = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))
        low, high = sorted((draw(bound), draw(bound)))
        step = draw(st.none() | st.sampled_from([0.001, 0.25, 10.0]))
    if distribution.startswith("log"):
        low, high = max(low, 1), max(high, 1)
    assume(step is None or (high - low) / step <= 2**53)
    return made("p", kind, repr(low), repr(high), "" if step is None else repr(step), distribution)


@example(made("p", "int", str(-(2**53)), "3"), [1.0])
@settings(max_examples=200, deadline=None)
@given(parameter=ranges(), coordinates=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_there_and_back_again(parameter: Parameter, coordinates: list[float]) -> None:
    space = Space((parameter,))
    points = from_unit(space, np.array(coordinates)[:, np.newaxis])
    for (value,) in points:
        assert feasible(parameter, parameter.format(value)), (parameter, value)
    units = to_unit(space, points)
    assert units.shape == (len(points), 1) and ((units >= 0) & (units <= 1)).all()
    width = parameter.high - parameter.low
    for (value,), (back,) in zip(points, from_unit(space, units), strict=True):
        # Of 2^53 values, a coordinate cannot tell neighbours apart.
        assert math.isclose(float(back), float(value), abs_tol=1e-9 * width, rel_tol=1e-9)
        if parameter.count() is not None and (parameter.count() or 0) < 1000:
            assert back == value


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("kind", "low", "high", "step"),
    [("double", "0.5", "80", ""), ("double", "1", "9", "0.5"), ("int", "1", "64", ""), ("int", "1", "64", "3")],
)
def test_the_ends_are_reached_and_order_is_kept(kind: str, low: str, high: str, step: str, distribution: str) -> None:
    parameter = made("p", kind, low, high, step, distribution)
    values = [point[0] for point in from_unit(Space((parameter,)), np.linspace(0, 1, 200)[:, np.newaxis])]
    assert values == sorted(values)
    assert (values[0], values[-1]) == pytest.approx((parameter.low, parameter.high))


def test_whole_numbers_to_the_last() -> None:
    parameter = made("p", "int", str(-(2**53)), str(2**53))
    space = Space((parameter,))
    assert from_unit(space, np.array([[0.0], [1.0]])) == [(-(2**53),), (2**53,)]
    assert to_unit(space, [(-(2**53),), (0,), (2**53,)]).ravel() == pytest.approx([0, 0.5, 1])


def test_lists_are_cells_of_equal_width() -> None:
    space = Space((listed("c", "categorical", "b", "a", ""), listed("d", "discrete", "10", "1")))
    assert [cells(parameter) for parameter in space.parameters] == [3, 2]
    points = from_unit(space, np.array([[0.0, 0.49], [0.34, 0.5], [1.0, 1.0]]))
    assert points == [("b", 1.0), ("a", 10.0), ("", 10.0)]
    assert to_unit(space, points).tolist() == [[1 / 6, 0.25], [0.5, 0.75], [2.5 / 3, 0.75]]


def test_a_uniform_draw_follows_the_distribution() -> None:
    space = Space(
        (made("log", "double", "0.01", "100", distribution="logUniform"), made("n", "double", "-3", "3", "", "normal"))
    )
    grid = (np.arange(1000) + 0.5) / 1000
    points = from_unit(space, np.column_stack([grid, grid]))
    assert sum(float(x) < 1 for x, _ in points) == pytest.approx(500, abs=1)
    assert sum(-1 < float(y) < 1 for _, y in points) == pytest.approx(683, abs=2)


def test_no_points_and_no_parameters() -> None:
    assert to_unit(Space((made("x", "double", "0", "1"),)), []).shape == (0, 1)
    assert to_unit(Space(()), [(), ()]).shape == (2, 0)


def test_a_range_that_cannot_be_a_logarithm_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        made("p", "double", "0", "1", "", "logUniform")
