"""Placeholders in constants."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_pipeline.ir.placeholders import UnknownPlaceholder, names_in, resolve, resolve_all, texts_of

VALUES = {"text": "a", "number": 3.0, "items": [1.0, {"b": 2.5}], "flag": True}
CONTEXT = {"pipeline_job_name": "the run"}


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        ("{{$.inputs.parameters['number']}}", 3.0),
        ("n={{$.inputs.parameters['number']}}", "n=3"),
        ('{{$.inputs.parameters["items"]}}!', '[1, {"b": 2.5}]!'),
        ({"a": ["{{$.inputs.parameters['flag']}}", None, 1.5]}, {"a": [True, None, 1.5]}),
        ({"k-{{$.inputs.parameters['text']}}": {"x": "{{$.pipeline_job_name}}"}}, {"k-a": {"x": "the run"}}),
        ({"{{$.inputs.parameters['number']}}": 1}, {"3": 1}),
        ("{{$labels.instance}} {{ .Values.x }} {{$x}} {{{}}}", "{{$labels.instance}} {{ .Values.x }} {{$x}} {{{}}}"),
        ([], []),
    ],
)
def test_constants_are_filled_in_at_any_depth(constant: Any, expected: Any) -> None:
    assert resolve_all(constant, VALUES, CONTEXT) == expected


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        ({"a": ["{{$.inputs.parameters['none']}}"]}, "'none'"),
        ({"{{$.nothing}}": 1}, "nothing"),
        (["{{$.pipeline_google_cloud_project_id}}"], "Google Cloud only"),
    ],
)
def test_what_has_no_value_is_named(constant: Any, message: str) -> None:
    with pytest.raises(UnknownPlaceholder, match=message):
        resolve_all(constant, VALUES, CONTEXT)


def test_names() -> None:
    found = list(
        texts_of({"{{$.inputs.parameters['a']}}": [1, "{{$.x}}", {"b": "{{$.pipeline_google_cloud_location}}"}]})
    )
    assert [names_in(text) for text in found] == [({"a"}, set()), (set(), {"{{$.x}}"}), (set(), set()), (set(), set())]


@given(st.text(alphabet="{}$.['] abc", max_size=40))
def test_what_names_nothing_stays_as_it_is(text: str) -> None:
    parameters, unknown = names_in(text)
    if not parameters and not unknown:
        assert resolve(text, {}, {}) == text


@given(st.text(max_size=20), st.text(alphabet="{}$.'[]abc", max_size=20))
def test_values_are_not_read_again(before: str, value: str) -> None:
    text = "<{{$.inputs.parameters['v']}}>"
    assert resolve(text, {"v": value}, {}) == f"<{value}>"
    assert resolve_all([before.replace("{", "("), text], {"v": value}, {}) == [before.replace("{", "("), f"<{value}>"]
