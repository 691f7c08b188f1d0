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
    [
        "", "1 +", "__import__('os')", "inputs.other['a']", "a == b", "(" * 5000, "!" * 5000, "x" * 20_000, "'a", "1 2",
        "9" * 9000, "inputs.parameter_values['a'][" + "9" * 9000 + "]",
    ],
)  # fmt: skip
def test_what_is_not_a_condition_is_refused(text):
    with pytest.raises(ConditionError):
        Condition(text)


def test_a_missing_input_is_named():
    with pytest.raises(ConditionError, match="'a'"):
        Condition("inputs.parameter_values['a'] == 1").holds({})


@pytest.mark.parametrize("text", ["int(1e999)", "double('x')", "size(1)", "1 < 'a'", "int('" + "9" * 9000 + "')"])
def test_what_has_no_value_is_said(text):
    with pytest.raises(ConditionError):
        Condition(text).holds({})


_VALUES = {"n": 3, "m": -2.5, "s": "it", "t": "", "b": True}
_NUMBERS = st.sampled_from(
    [
        ("inputs.parameter_values['n']", 3),
        ("int(inputs.parameter_values['n'])", 3),
        ("double(inputs.parameter_values['m'])", -2.5),
        ("7", 7),
        ("-1.5", -1.5),
    ]
)
_TEXTS = st.sampled_from([("inputs.parameter_values['s']", "it"), ("inputs.parameter_values['t']", ""), ("'it'", "it")])
_COMPARE = {"==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, ">=": lambda a, b: a >= b}


def _compared(pair, operator):
    (left, a), (right, b) = pair
    return f"{left} {operator} {right}", _COMPARE[operator](a, b)


_LEAVES = st.builds(
    _compared, st.tuples(_NUMBERS, _NUMBERS) | st.tuples(_TEXTS, _TEXTS), st.sampled_from(sorted(_COMPARE))
) | st.just(("inputs.parameter_values['b'] == true", True))
_TREES = st.recursive(
    _LEAVES,
    lambda inner: (
        inner.map(lambda one: (f"!({one[0]})", not one[1]))
        | st.tuples(inner, inner).map(lambda two: (f"({two[0][0]}) && ({two[1][0]})", two[0][1] and two[1][1]))
        | st.tuples(inner, inner).map(lambda two: (f"({two[0][0]})||({two[1][0]})", two[0][1] or two[1][1]))
    ),
    max_leaves=8,
)


@given(_TREES)
def test_a_condition_says_what_its_parts_say(tree):
    text, expected = tree
    assert Condition(text).holds(_VALUES) is expected


@given(st.text(max_size=60))
def test_no_text_does_harm(text):
    with contextlib.suppress(ConditionError):
        Condition(text).holds({})
