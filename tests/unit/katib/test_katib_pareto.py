"""Fronts, crowding and hypervolume, beside what their definitions say."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_katib.pareto import crowding, fronts, hypervolume, pareto_front

numbers = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1e308, 1e308])
outcomes = st.integers(1, 3).flatmap(
    lambda width: st.lists(
        st.tuples(st.tuples(*[numbers] * width), st.sampled_from([0.0, 0.0, 0.5, 2.0])), min_size=1, max_size=14
    )
)


def dominates(one: tuple[tuple[float, ...], float], other: tuple[tuple[float, ...], float]) -> bool:
    if one[1] > 0 or other[1] > 0:
        return one[1] < other[1]
    return all(a <= b for a, b in zip(one[0], other[0], strict=True)) and one[0] != other[0]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(outcomes)
def test_fronts_are_what_is_left_when_those_before_are_taken_away(
    made: list[tuple[tuple[float, ...], float]],
) -> None:
    losses, violations = [item[0] for item in made], [item[1] for item in made]
    found = fronts(losses, violations)
    left = set(range(len(made)))
    for front in found:
        assert set(front) == {i for i in left if not any(dominates(made[j], made[i]) for j in left)}
        left -= set(front)
    assert not left
    kept = {i for i in range(len(made)) if violations[i] == 0}
    best = sorted(i for i in kept if not any(dominates(made[j], made[i]) for j in kept))
    assert pareto_front(losses, violations) == best
    assert not np.isnan(crowding(losses)).any()


def test_many_outcomes_are_sorted_in_blocks() -> None:
    points = np.random.default_rng(1).random((700, 2))
    found = fronts(points.tolist())
    assert sorted(place for front in found for place in front) == list(range(700))
    for earlier, later in itertools.pairwise(found):
        for place in later[:3]:
            assert (points[earlier] <= points[place]).all(axis=1).any()
    some = fronts(points.tolist(), enough=20)
    assert some == found[: len(some)] and sum(map(len, some[:-1])) < 20 <= sum(map(len, some))


def test_crowding_is_infinite_at_the_ends_and_small_in_a_crowd() -> None:
    found = crowding([[0, 10], [1, 9], [1.5, 8.5], [9, 1], [10, 0]])
    assert math.isinf(found[0]) and math.isinf(found[4])
    assert found[1] == pytest.approx(0.15 + 0.15)
    assert found[2] == pytest.approx(0.8 + 0.8)


def test_the_hypervolume_is_an_area() -> None:
    assert hypervolume([], [1, 1]) == 0
    assert hypervolume([[0, 0]], [2, 3]) == 6
    assert hypervolume([[1, 2], [2, 1], [2, 2], [5, 0]], [3, 3]) == 3
    with pytest.raises(ValueError, match="two"):
        hypervolume([[1, 2, 3]], [4, 4, 4])
