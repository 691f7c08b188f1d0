"""Conditions of tasks: the part of CEL (https://cel.dev) that the KFP compiler writes.

expression := or;  or := and ("||" and)*;  and := not ("&&" not)*;  not := "!" not | comparison
comparison := value (("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") value)?
value := literal | "(" expression ")" | function "(" expression ")" | path
path := "inputs.parameter_values[" string "]" ("[" string or integer "]" | "." name)*
"""

import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<string>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<op>&&|\|\||==|!=|<=|>=|[!<>()\[\].,]))"
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda item, items: item in items,
}
_MAX_LENGTH = 10_000
_MAX_DEPTH = 100

Evaluate = Callable[[Mapping[str, Any]], Any]


class ConditionError(ValueError):
    """The condition is not of the grammar, or its values do not fit it."""


class Condition:
    """A parsed condition.

    Args:
        text: CEL, as the compiler writes it.

    Raises:
        ConditionError: It is not of the grammar above.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_LENGTH:
            raise ConditionError(f"longer than {_MAX_LENGTH} characters")
        self.text = text
        self.inputs: set[str] = set()
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._evaluate = self._or()
        if self._at != len(self._tokens):
            raise ConditionError(f"unexpected {self._tokens[self._at][1]!r}")

    def holds(self, parameters: Mapping[str, Any]) -> bool:
        """Tells whether it holds for these inputs.

        Raises:
            ConditionError: An input is missing, or the types do not compare.
        """
        try:
            return bool(self._evaluate(parameters))
        except (KeyError, IndexError) as error:
            raise ConditionError(f"no value for {error.args[0]!r}") from error
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ConditionError(str(error)) from error

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _take(self, wanted: str = "") -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise ConditionError(f"ends where {wanted or 'a value'} was expected")
        token = self._tokens[self._at]
        if wanted and token[1] != wanted:
            raise ConditionError(f"expected {wanted!r}, got {token[1]!r}")
        self._at += 1
        return token

    def _or(self) -> Evaluate:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ConditionError("nested too deep")
        parts = [self._and()]
        while self._peek() == "||":
            self._take()
            parts.append(self._and())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else lambda given: any(part(given) for part in parts)

    def _and(self) -> Evaluate:
        parts = [self._not()]
        while self._peek() == "&&":
            self._take()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda given: all(part(given) for part in parts)

    def _not(self) -> Evaluate:
        if self._peek() != "!":
            return self._comparison()
        self._take()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ConditionError("nested too deep")
        inner = self._not()
        self._depth -= 1
        return lambda given: not inner(given)

    def _comparison(self) -> Evaluate:
        left = self._value()
        compare = _COMPARISONS.get(self._peek())
        if compare is None:
            return left
        self._take()
        right = self._value()
        return lambda given: compare(left(given), right(given))

    def _value(self) -> Evaluate:
        kind, text = self._take()
        if kind == "number":
            number: Any = float(text) if re.search(r"[.eE]", text) else _whole(text)
            return lambda _: number
        if kind == "string":
            literal = _unquoted(text)
            return lambda _: literal
        if text == "(":
            inner = self._or()
            self._take(")")
            return inner
        constants: dict[str, Any] = {"true": True, "false": False, "null": None}
        if text in constants:
            constant = constants[text]
            return lambda _: constant
        if text in _FUNCTIONS:
            self._take("(")
            argument = self._or()
            self._take(")")
            function = _FUNCTIONS[text]
            return lambda given: function(argument(given))
        if text == "inputs":
            return self._path()
        raise ConditionError(f"unexpected {text!r}")

    def _path(self) -> Evaluate:
        self._take(".")
        if self._take()[1] != "parameter_values":
            raise ConditionError("only inputs.parameter_values can be used")
        self._take("[")
        kind, text = self._take()
        if kind != "string":
            raise ConditionError("expected the name of a parameter")
        self._take("]")
        name = _unquoted(text)
        self.inputs.add(name)
        keys: list[Any] = []
        while self._peek() in {".", "["}:
            if self._take()[1] == ".":
                keys.append(self._take()[1])
                continue
            kind, text = self._take()
            keys.append(_unquoted(text) if kind == "string" else _whole(text))
            self._take("]")

        def evaluate(given: Mapping[str, Any]) -> Any:
            value = given[name]
            for key in keys:
                value = value[key]
            return value

        return evaluate


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConditionError(f"{text[:40]!r} is no whole number") from error


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() == "true"
    return bool(value)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "double": float,
    "string": _string,
    "bool": _boolean,
    "size": len,
}


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ConditionError(f"unexpected {text[at : at + 10]!r}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return found


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
