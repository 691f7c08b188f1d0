"""YAML from users: read, or refused with the field and the place; never a bomb, never code."""

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.documents import load_yaml, load_yaml_all
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.names import check_name
from mlmesh_kit.paging import decode_page_token, encode_page_token

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(categories=["L", "N", "P"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(value=st.dictionaries(st.text("abc", min_size=1), PLAIN, min_size=1))
def test_what_yaml_writes_is_read_back(value: dict[str, Any]) -> None:
    assert load_yaml(yaml.safe_dump(value, allow_unicode=True)) == value


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_anything_is_read_or_refused(text: str | bytes) -> None:
    try:
        load_yaml(text, field="spec")
    except InvalidArgument as error:
        assert error.violations[0][0] == "spec"


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "at most"),
        ("[" * 10_000, "nested"),
        ("{" * 5_000, "nested"),
        ("x" * (9 << 20), "bytes"),
        ("- x\n" * 600_000, "nodes"),
        ("a: 1\na: 2", "twice"),
        ("a: 1\n---\nb: 2", "one document"),
        ("!!python/object/apply:os.system ['echo no']", "YAML"),
        ("a: [1, 2", "line"),
        ("\ta: 1", "line"),
        (b"\xff\xfe", "UTF-8"),
        ("? [a, b]\n: 1", "scalar"),
        ("a: *unknown", ""),
        ("&a [*a]", ""),
    ],
)
def test_hostile_documents_are_refused_at_once(text: str | bytes, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidArgument) as caught:
        load_yaml(text)
    assert said in caught.value.message
    assert time.monotonic() - started < 20  # a bomb would take for ever, or all memory


def test_several_documents() -> None:
    assert load_yaml_all("a: 1\n---\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


@settings(max_examples=200, deadline=None)
@given(position=PLAIN, query=PLAIN)
def test_page_tokens_come_back(position: Any, query: Any) -> None:
    assert decode_page_token(encode_page_token(position, query), query) == position


@settings(max_examples=200, deadline=None)
@given(token=st.text(min_size=1, max_size=100))
def test_made_up_page_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidArgument):
        decode_page_token(token, "query")


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a.b", "a" * 64, "ü", "a b", "a/b", "..", "a\n"])
def test_names_of_resources(name: str) -> None:
    check_name("a-1", "metadata.name")
    with pytest.raises(InvalidArgument) as caught:
        check_name(name, "metadata.name")
    assert caught.value.violations[0][0] == "metadata.name"
