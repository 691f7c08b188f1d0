"""Selectors: the part of an input that a task asks for."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_pipeline.ir.check import selector_keys, split_subvariable

KEYS = st.text(alphabet=st.characters(exclude_characters='"', exclude_categories=["Cc", "Cs"]), max_size=20)


@given(st.lists(KEYS | st.integers(0, 99), min_size=1, max_size=5))
def test_keys_are_read_back(keys: list[str | int]) -> None:
    written = "".join(f'["{key}"]' if isinstance(key, str) else f"[{key}]" for key in keys)
    assert selector_keys(f"parseJson(string_value){written}") == keys


@given(st.text(alphabet="[]\"'\\ab0 ", max_size=30))
def test_no_text_does_harm(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert selector_keys(f"parseJson(string_value){text}")


@pytest.mark.parametrize("text", ["", "parseJson(string_value)", "string_value['a']", "parseJson(x)['a']"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        selector_keys(text)


def test_names_of_parts() -> None:
    known = {"x", "y-subvar-a"}
    assert split_subvariable("x-subvar-a", known) == ("x", "a")
    assert split_subvariable("y-subvar-a", known) == ("y-subvar-a", "")
    assert split_subvariable("z-subvar-a", known) == ("z-subvar-a", "")
