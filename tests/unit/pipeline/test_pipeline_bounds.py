"""What no document may hold, whoever wrote it."""

import datetime
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_pipeline.ir.bounds import MAX_DEPTH, check_bounds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"root": {"dag": [1, math.nan]}}, r"^spec\.root\.dag\[1\]: must be a finite number$"),
        ({"a b": -math.inf}, r"^spec\['a b'\]: must be a finite number"),
        ({"a": 10**400}, r"^spec\.a: is too large"),
        ({"a": {"b": datetime.date(2026, 1, 1)}}, r"^spec\.a\.b: is a date, which JSON does not know"),
        ({"a": b"x"}, r"^spec\.a: is a bytes"),
        ({"a": ["\ud800"]}, r"^spec\.a\[0\]: is not Unicode text"),
        ({"a": {1: 2}}, r"^spec\.a: keys must be text"),
        ({"a": {"\ud800": 2}}, r"^spec\.a: keys must be text"),
        ({"spec": {"a": math.inf}}, r"^spec\.a: must be"),
    ],
)
def test_what_json_does_not_know_is_refused_with_its_place(content: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        check_bounds(content, "spec")


@pytest.mark.parametrize(
    ("step", "levels"), [(lambda inner: {"a": inner}, (MAX_DEPTH - 1) // 3), (lambda inner: [inner], MAX_DEPTH // 2)]
)
def test_depth(step: Any, levels: int) -> None:
    content: Any = 1
    for _ in range(levels):
        content = step(content)
    check_bounds(content, "spec")
    for _ in range(100_000):
        content = step(content)
    with pytest.raises(InvalidArgument, match="nested deeper") as caught:
        check_bounds(content, "spec")
    assert len(str(caught.value)) < 1000


def test_size() -> None:
    with pytest.raises(InvalidArgument, match="more than 500000 values"):
        check_bounds([[0] * 1000] * 1000, "spec")
    with pytest.raises(InvalidArgument, match="larger than"):
        check_bounds(["x" * 1000] * 10_000, "spec")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_what_json_knows_passes(content: Any) -> None:
    check_bounds(content, "spec")
