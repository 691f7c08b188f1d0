r"""Conditions of steps: paths of GJSON, which hold where they find something.

KServe's router evaluates them with the Go library; of its language there is here what KServe's documentation uses and
what belongs to it: keys with the wildcards `*` and `?` and escapes (`fav\.movie`), indices, `#`, queries `#(...)` and
`#(...)#` with `== != < <= > >= % !%`, nested ones too, the separators `.` and `|`, `@this`, and `[path, path]`. What is
left out (other modifiers, `{...}`, literals, JSON lines) is refused when the graph is made. `{...}`, which older
examples have (`{ .input.userId == 1 }`), finds something in every document, and so would hold always.

Reference: https://github.com/tidwall/gjson/blob/master/SYNTAX.md
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from mlmesh_kit.errors import InvalidArgument

MAX_LENGTH = 1024
MAX_DEPTH = 8
MAX_WILDCARDS = 16
MAX_STEPS = 200_000
"""Values that an evaluation looks at, at most: some tenths of a second."""
_OPERATORS = ("==", "!=", "<=", ">=", "!%", "=", "<", ">", "%")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class _Missing:
    """Where a path finds nothing; null is something."""


_MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    pattern: "_Pattern | None" = None


@dataclass(frozen=True, slots=True)
class _This:
    """`@this`: the value itself."""


@dataclass(frozen=True, slots=True)
class _Hash:
    """`#`: the length of an array, or each of its elements where more of the path follows."""


@dataclass(frozen=True, slots=True)
class _Paths:
    """`[path, path]`: an array of what they find."""

    paths: tuple["_Path", ...]


@dataclass(frozen=True, slots=True)
class _Query:
    """`#(path operator operand)`: the first element of an array that fits, or all."""

    path: "_Path"
    operator: str
    operand: str
    all: bool


_Part = _Key | _This | _Hash | _Paths | _Query
_Path = tuple[tuple[str, _Part], ...]  # each with the separator before it; of the first it is "|"


class _Pattern:
    """A text with the wildcards `*` and `?`, matched in time that grows with the text alone."""

    def __init__(self, pieces: list[str]) -> None:
        """Takes pieces between `*`, as regular expressions; one piece: no `*`."""
        self._whole = re.compile(pieces[0], re.DOTALL) if len(pieces) == 1 else None
        self._first = re.compile(pieces[0], re.DOTALL)
        self._middle = [re.compile(piece, re.DOTALL) for piece in pieces[1:-1]]
        self._last = re.compile(f"(?:{pieces[-1]})\\Z", re.DOTALL)

    def matches(self, text: str) -> bool:
        if self._whole is not None:
            return self._whole.fullmatch(text) is not None
        found = self._first.match(text)
        for piece in self._middle:
            if found is None:
                return False
            found = piece.search(text, found.end())
        return found is not None and self._last.search(text, found.end()) is not None


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, parsed.

    Attributes:
        text: As the user wrote it.
    """

    text: str
    path: _Path

    def holds(self, document: Any) -> bool:
        """Tells whether the path finds something in a document (what a JSON parser gives).

        Raises:
            InvalidArgument: The document is too large for this condition.
        """
        return _Evaluation().get(self.path, document) is not _MISSING


def parse_condition(text: Any, field: str) -> Condition:
    """Checks a condition.

    Args:
        text: As the user wrote it.
        field: Where.

    Raises:
        InvalidArgument: It is no GJSON path, or has what is not served of GJSON.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidArgument("must be a path in GJSON's syntax", field=field)
    if len(text) > MAX_LENGTH:
        raise InvalidArgument(f"must have at most {MAX_LENGTH} characters", field=field)
    try:
        return Condition(text, _parse(text.strip(), 0))
    except ValueError as error:
        raise InvalidArgument(f"must be a path in GJSON's syntax: {error}", field=field) from None


def _parse(text: str, depth: int) -> _Path:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    parts: list[tuple[str, _Part]] = []
    position, separator = 0, "|"
    while True:
        part, position = _parse_part(text, position, depth)
        parts.append((separator, part))
        if position == len(text):
            return tuple(parts)
        separator = text[position]
        if separator not in ".|":
            raise ValueError(f"{text[position:][:20]!r} is not expected there")
        position += 1


def _parse_part(text: str, position: int, depth: int) -> tuple[_Part, int]:
    first = text[position : position + 1]
    if first == "[":
        end = _closing(text, position)
        inner = [piece.strip() for piece in _split(text[position + 1 : end])]
        return _Paths(tuple(_parse(piece, depth + 1) for piece in inner)), end + 1
    if first == "#":
        if text[position + 1 : position + 2] in ("(", "["):
            end = _closing(text, position + 1)
            every = text[end + 1 : end + 2] == "#"
            return _parse_query(text[position + 2 : end], every, depth + 1), end + 1 + every
        return _Hash(), position + 1
    if first == "{":
        raise ValueError("{...} finds something in every document; write [@this].#(path==value)")
    if first == "!":
        raise ValueError("literals (!...) are not served")
    key, end = _parse_key(text, position)
    if first == "@":
        if text[position:end] != "@this":
            raise ValueError(f"the modifier {text[position:end][:40]} is not served; @this is")
        return _This(), end
    return key, end


def _parse_key(text: str, position: int) -> tuple[_Key, int]:
    name: list[str] = []
    pieces = [""]
    wild = False
    start = position
    while position < len(text) and text[position] not in ".|":
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            position += 1
            character = text[position]
            pieces[-1] += re.escape(character)
        elif character == "*":
            wild = True
            pieces.append("")
        elif character == "?":
            wild = True
            pieces[-1] += "."
        else:
            pieces[-1] += re.escape(character)
        name.append(character)
        position += 1
    if position == start:
        raise ValueError("a part of it is empty")
    return _Key("".join(name), _pattern(pieces) if wild else None), position


def _pattern(pieces: list[str]) -> _Pattern:
    if len(pieces) > MAX_WILDCARDS + 1:
        raise ValueError(f"it has more than {MAX_WILDCARDS} wildcards *")
    return _Pattern(pieces)


def _parse_query(text: str, every: bool, depth: int) -> _Query:
    position, operator = _find_operator(text)
    left = text[:position].strip()
    path: _Path = _parse(left, depth) if left else ()
    if not operator:
        if not left:
            raise ValueError("a query is empty")
        return _Query(path, "", "", every)
    operand = text[position + len(operator) :].strip()
    if operand.startswith("~"):
        raise ValueError("the operand ~ is not served")
    if operand.startswith('"'):
        operand = _unquoted(operand)
    if operator.endswith("%"):
        _operand_pattern(operand)
    return _Query(path, "==" if operator == "=" else operator, operand, every)


def _find_operator(text: str) -> tuple[int, str]:
    for position, depth in _outside_quotes(text):
        if depth == 0:
            for operator in _OPERATORS:
                if text.startswith(operator, position):
                    return position, operator
    return len(text), ""


def _operand_pattern(operand: str) -> _Pattern:
    pieces = [""]
    escaped = False
    for character in operand:
        if escaped or character not in "\\*?":
            pieces[-1] += re.escape(character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "*":
            pieces.append("")
        else:
            pieces[-1] += "."
    return _pattern(pieces)


def _unquoted(text: str) -> str:
    found: list[str] = []
    position = 1
    while position < len(text):
        character = text[position]
        if character == '"':
            if position + 1 != len(text):
                raise ValueError(f"{text[position + 1 :][:20]!r} follows a text in quotes")
            return "".join(found)
        if character == "\\" and position + 1 < len(text):
            position += 1
            character = _ESCAPES.get(text[position], text[position])
        found.append(character)
        position += 1
    raise ValueError("a text in quotes does not end")


def _outside_quotes(text: str) -> Iterator[tuple[int, int]]:
    """Gives the positions that are not in quotes and not escaped, each with the brackets that are open there."""
    open_brackets: list[str] = []
    quoted = escaped = False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif not quoted:
            if open_brackets and character == open_brackets[-1]:
                open_brackets.pop()
            yield position, len(open_brackets)
            if character in _CLOSING:
                open_brackets.append(_CLOSING[character])


def _closing(text: str, start: int) -> int:
    """Gives the position of the bracket that closes the one at the start."""
    wanted = _CLOSING[text[start]]
    for position, depth in _outside_quotes(text[start:]):
        if position and not depth and text[start + position] == wanted:
            return start + position
    raise ValueError(f"a {text[start]} does not end")


def _split(text: str) -> list[str]:
    """Splits at commas outside of quotes and brackets."""
    cuts = [position for position, depth in _outside_quotes(text) if not depth and text[position] == ","]
    return [text[start:end] for start, end in zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(text)], strict=True)]


class _Evaluation:
    """One evaluation, with what it may still cost."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def get(self, path: _Path, value: Any) -> Any:
        """Gives what a path finds; `_MISSING`: nothing."""
        at = 0
        while at < len(path):
            self._spend()
            part = path[at][1]
            at += 1
            if isinstance(part, (_Hash, _Query)):
                value, at = self._of_array(part, path, at, value)
            elif isinstance(part, _Paths):
                found = [self.get(one, value) for one in part.paths]
                value = [one for one in found if one is not _MISSING]
            elif isinstance(part, _Key):
                value = self._child(part, value)
            if value is _MISSING:
                return _MISSING
        return value

    def _of_array(self, part: _Hash | _Query, path: _Path, at: int, value: Any) -> tuple[Any, int]:
        if not isinstance(value, list):
            return _MISSING, at
        if isinstance(part, _Query):
            fitting = (element for element in value if self._fits(part, element))
            if not part.all:
                return next(fitting, _MISSING), at
            value = list(fitting)
        end = at  # what follows after dots is looked for in each element; after a |, in all of them together
        while end < len(path) and path[end][0] == ".":
            end += 1
        if end == at:
            return (len(value) if isinstance(part, _Hash) else value), at
        found = [self.get(path[at:end], element) for element in value]
        return [one for one in found if one is not _MISSING], end

    def _child(self, key: _Key, value: Any) -> Any:
        if isinstance(value, dict):
            if key.pattern is None:
                return value.get(key.name, _MISSING)
            for name, child in value.items():
                self._spend()
                if key.pattern.matches(name):
                    return child
        elif isinstance(value, list) and key.name.isascii() and key.name.isdigit():
            index = int(key.name) if len(key.name) < 10 else len(value)
            return value[index] if index < len(value) else _MISSING
        return _MISSING

    def _fits(self, query: _Query, element: Any) -> bool:
        self._spend()
        if query.path:
            if not isinstance(element, (dict, list)):
                return False
            element = self.get(query.path, element)
        if element is _MISSING:
            return False
        return not query.operator or _compare(element, query.operator, query.operand)

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise InvalidArgument("the document is too large for a condition of this graph")


def _compare(value: Any, operator: str, operand: str) -> bool:
    if isinstance(value, bool):
        return _compare_bool(value, operator, operand)
    if isinstance(value, str):
        if operator.endswith("%"):
            return _operand_pattern(operand).matches(value) is (operator == "%")
        return _ordered(value, operator, operand)
    if isinstance(value, (int, float)):
        if not _NUMBER.fullmatch(operand):
            return operator == "!="
        return _ordered(float(value), operator, float(operand))
    return False  # null, objects and arrays equal nothing


def _compare_bool(value: bool, operator: str, operand: str) -> bool:
    word = "true" if value else "false"
    if operator in ("==", "!="):
        return (word == operand) is (operator == "==")
    if operand not in ("true", "false"):
        return False
    return _ordered(value, operator, operand == "true")


def _ordered(left: Any, operator: str, right: Any) -> bool:
    if operator == "==":
        return bool(left == right)
    if operator == "!=":
        return bool(left != right)
    if operator == "<":
        return bool(left < right)
    if operator == "<=":
        return bool(left <= right)
    if operator == ">":
        return bool(left > right)
    return operator == ">=" and bool(left >= right)
