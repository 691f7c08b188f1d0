import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_pipeline.ir.condition import Condition, ConditionError


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("inputs.parameter_values['a'] == 'heads'", {"a": "heads"}, True),
        ("inputs.parameter_values['a'] == 'heads'", {"a": "tails"}, False),
        ("!(int(inputs.parameter_values['a']) > 3)", {"a": 3}, True),
        (
            "int(inputs.parameter_values['a']) > 3 && !(inputs.parameter_values['b'] == true)",
            {"a": 4, "b": True},
            False,
        ),
        (
            "inputs.parameter_values['a'] == 'x' || double(inputs.parameter_values['b']) <= 0.5",
            {"a": "y", "b": 0.5},
            True,
        ),
        ("inputs.parameter_values['a'].b[0] == 1", {"a": {"b": [1]}}, True),
        ("'x' in inputs.parameter_values['a']", {"a": ["x"]}, True),
        ("inputs.parameter_values['a'] == 'it\\'s'", {"a": "it's"}, True),
    ],
)
def test_holds(text, values, expected):
    assert Condition(text).holds(values) is expected


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "__import__('os')", "inputs.other['a']", "a == b", "(" * 5000, "!" * 5000, "x" * 20_000, "'a", "1 2"],
)
def test_what_is_not_a_condition_is_refused(text):
    with pytest.raises(ConditionError):
        Condition(text)


def test_a_missing_input_is_named():
    with pytest.raises(ConditionError, match="'a'"):
        Condition("inputs.parameter_values['a'] == 1").holds({})


@given(st.text(max_size=60))
def test_no_text_does_harm(text):
    with contextlib.suppress(ConditionError):
        Condition(text).holds({})
