"""Conditions: GJSON paths. The examples and what they give are those of GJSON's own description."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import InvalidArgument
from mlmesh_serving.graph.condition import _MISSING, _Evaluation, parse_condition

DOCUMENT = {
    "name": {"first": "Tom", "last": "Anderson"},
    "age": 37,
    "children": ["Sara", "Alex", "Jack"],
    "fav.movie": "Deer Hunter",
    "nothing": None,
    "yes": True,
    "friends": [
        {"first": "Dale", "last": "Murphy", "age": 44, "nets": ["ig", "fb", "tw"]},
        {"first": "Roger", "last": "Craig", "age": 68, "nets": ["fb", "tw"]},
        {"first": "Jane", "last": "Murphy", "age": 47, "nets": ["ig", "tw"]},
    ],
}


def found(path: str, document=DOCUMENT):
    return _Evaluation().get(parse_condition(path, "condition").path, document)


def holds(path: str, document) -> bool:
    return parse_condition(path, "condition").holds(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name.last", "Anderson"),
        ("age", 37),
        ("children.0", "Sara"),
        ("friends.1.first", "Roger"),
        ("child*.2", "Jack"),
        ("c?ildren.0", "Sara"),
        ("fav\\.movie", "Deer Hunter"),
        ("children.#", 3),
        ("friends.#.age", [44, 68, 47]),
        ('friends.#(last=="Murphy").first', "Dale"),
        ('friends.#(last=="Murphy")#.first', ["Dale", "Jane"]),
        ("friends.#(age>45)#.last", ["Craig", "Murphy"]),
        ('friends.#(first%"D*").last', "Murphy"),
        ('friends.#(first!%"D*").last', "Craig"),
        ('children.#(!%"*a*")', "Alex"),
        ('children.#(%"*a*")#', ["Sara", "Jack"]),
        ('friends.#(nets.#(=="fb"))#.first', ["Dale", "Roger"]),
        ('friends.#(nets.#(=="fb"))#|#', 2),
        ("friends.#[age>60].first", "Roger"),
        ("friends|0|first", "Dale"),
        ("friends.0|first", "Dale"),
        ("friends|#", 3),
        ('friends.#(last="Murphy")#.0', []),
        ('friends.#(last="Murphy")#|0.first', "Dale"),
        ('friends.#(last="Murphy")#.#', []),
        ('friends.#(last="Murphy")#|#', 2),
        ("friends.#.nets.#", [3, 2, 2]),
        ("friends.#(age)#.age", [44, 68, 47]),
        ("[name.first,age]", ["Tom", 37]),
        ("[name.none,age].0", 37),
        ("@this.age", 37),
        ("nothing", None),
        ('[@this].#(name.first=="Tom").age', 37),
        ("[@this].#(name.first==Tom).age", 37),
        ("[@this].#( age >= 37 ).name.last", "Anderson"),
        ("[@this].#(yes==true).age", 37),
        ('[@this].#(children.1=="Alex")|age', 37),
    ],
)
def test_what_paths_find(path: str, value: object) -> None:
    assert found(path) == value


@pytest.mark.parametrize(
    "path",
    [
        "name.middle", "children.3", "children.99999999999999999999", "children.x", "age.x", "age.#",
        "friends.#(age>100)",
        'friends.#(last="Murphy")#|first', "[@this].#(age<37)", "[@this].#(age!=37)", "[@this].#(nothing==null)",
        "[@this].#(name==Tom)", "[@this].#(yes==false)", "[@this].#(yes>true)", '[@this].#(age%"3*")',
        "[@this].#(age==x)",
        "children.#(first==Sara)", "name.#(first==Tom)", "nothing.x", "x*",
    ],
)  # fmt: skip
def test_what_paths_do_not_find(path: str) -> None:
    assert found(path) is _MISSING


def test_conditions_of_kserves_examples() -> None:
    condition = '[@this].#(predictions.0=="dog")'
    assert holds(condition, {"predictions": ["dog", "cat"]})
    assert not holds(condition, {"predictions": ["cat", "dog"]})
    assert not holds(condition, {"predictions": []})
    assert holds("[@this].#(decision_picker==ERROR)", {"decision_picker": "ERROR"})
    assert holds("instances.#(intval>10)", {"instances": [{"intval": 9}, {"intval": 11}]})
    assert not holds("instances.#(intval>10)", {"instances": [{"intval": 9}]})
    assert holds("predictions.#(class==news)", {"predictions": [{"class": "news"}]})


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "must be a path"),
        (None, "must be a path"),
        (7, "must be a path"),
        ("a" * 2000, "at most 1024"),
        ("a..b", "a part of it is empty"),
        (".a", "a part of it is empty"),
        ("a.", "a part of it is empty"),
        ("[a", r"a \[ does not end"),
        ("[a]b", "'b' is not expected"),
        ("a.#(b", r"a \( does not end"),
        ("a.#(b=]", r"a \( does not end"),
        ("a.#()", "a query is empty"),
        ('a.#(b=="c)', "does not end"),
        ('a.#(b=="c"d)', "'d' follows a text in quotes"),
        ("a.@reverse", "the modifier @reverse is not served"),
        ("{ .input.userId == 1 }", r"write \[@this\]"),
        ('!"x"', "literals"),
        ("a.#(b==~true)", "~ is not served"),
        ("*" * 20, "more than 16 wildcards"),
        ('a.#(b%"' + "*" * 20 + '")', "more than 16 wildcards"),
        ("[" * 20 + "a" + "]" * 20, "more than 8 deep"),
    ],
)
def test_other_conditions_are_refused(path: object, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as error:
        parse_condition(path, "spec.nodes.root.steps[0].condition")
    assert error.value.message.startswith("spec.nodes.root.steps[0].condition: ")


def test_a_condition_that_would_take_too_long_is_stopped() -> None:
    path = "[@this,@this,@this,@this,@this,@this]"
    for _ in range(6):
        path = f"[@this,@this,@this,@this,@this,@this].#({path})#"
    with pytest.raises(InvalidArgument, match="too large for a condition"):
        holds(path, {"a": 1})


KEYS = st.text(min_size=1, max_size=8)
LEAVES = st.one_of(st.text(max_size=8), st.integers(-1000, 1000), st.booleans(), st.none())
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=20,
)


def escaped(key: str) -> str:
    """Writes a key so that nothing in it has a meaning."""
    return "".join(c if c in string.ascii_letters + string.digits else "\\" + c for c in key)


def walk(data, document) -> tuple[list[str], object]:
    """Draws a way into a document; gives its parts and where it leads."""
    parts = []
    while isinstance(document, (dict, list)) and document:
        if isinstance(document, dict):
            key = data.draw(st.sampled_from(list(document)))
            parts.append(escaped(key))
            document = document[key]
        else:
            index = data.draw(st.integers(0, len(document) - 1))
            parts.append(str(index))
            document = document[index]
    return parts, document


@settings(max_examples=50)
@given(DOCUMENTS, st.data())
def test_every_way_into_a_document_is_found_and_compared_right(inner, data) -> None:
    document = {"root": inner}
    parts, leaf = walk(data, document)
    path = data.draw(st.sampled_from([".", "|"])).join(parts)
    assert found(path, document) == leaf
    assert found(path + ".missing", document) is _MISSING
    dotted = ".".join(parts)
    if isinstance(leaf, str):
        text = leaf.replace("\\", "\\\\").replace('"', '\\"')
        assert holds(f'[@this].#({dotted}=="{text}")', document)
        assert not holds(f'[@this].#({dotted}!="{text}")', document)
        assert not holds(f'[@this].#({dotted}=="{text}x")', document)
    elif isinstance(leaf, bool):
        assert holds(f"[@this].#({dotted}=={str(leaf).lower()})", document)
    elif isinstance(leaf, int):
        other = data.draw(st.integers(-1000, 1000))
        for operator, is_so in (
            ("==", leaf == other), ("!=", leaf != other), ("<", leaf < other), ("<=", leaf <= other),
            (">", leaf > other), (">=", leaf >= other),
        ):  # fmt: skip
            assert holds(f"[@this].#({dotted}{operator}{other})", document) is is_so


def matches(pattern: str, text: str) -> bool:
    """What wildcards mean, said slowly."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(matches(pattern[1:], text[n:]) for n in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and matches(pattern[1:], text[1:])


@given(st.text("ab*?", max_size=7), st.text("ab", max_size=8))
def test_wildcards(pattern: str, text: str) -> None:
    assert holds(f'@this.#(%"{pattern}")', [text]) is matches(pattern, text)
    if pattern:
        assert holds(pattern, {text: 1}) is matches(pattern, text)


@given(st.one_of(st.text(max_size=30), st.text('ab.|#()[]"\\=<>!%@*?, 1', max_size=30)), DOCUMENTS)
def test_any_text_is_a_condition_or_is_refused(text: str, document) -> None:
    try:
        condition = parse_condition(text, "condition")
    except InvalidArgument:
        return
    assert condition.holds(document) in (True, False)
