"""Reads a filter_query: by a grammar (grammar.lark), with names resolved and types checked."""

from functools import lru_cache
from importlib import resources
from typing import Any, NoReturn

import lark
from mlmesh_kit.errors import InvalidArgument

from mlmesh_metadata.filtering.expression import (
    Arithmetic,
    Column,
    Comparison,
    Expression,
    InList,
    IsNull,
    Literal,
    Logical,
    Not,
    ValueType,
)
from mlmesh_metadata.filtering.fields import UnknownName, enumerators, resolve
from mlmesh_metadata.filtering.literals import MAX_INT, BadLiteral, integer, unquote
from mlmesh_metadata.kinds import Kind

MAX_CHARACTERS = 100_000
MAX_DEPTH = 50
"""Of parentheses, NOTs and signs within one another."""
MAX_CONDITIONS = 500
"""Operands of ANDs and ORs, together: databases limit the depth of what they are asked."""
MAX_VALUES = 10_000
"""Literals, together: databases limit the parameters of a statement."""


def parse_filter(text: str, kind: Kind, field: str = "options.filter_query") -> Expression:
    """Reads a condition.

    Args:
        text: As the client wrote it.
        kind: Of the nodes that are filtered.
        field: Where it is in the request.

    Raises:
        InvalidArgument: It is no condition on this kind of node; says where and why.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidArgument(f"Invalid `filter_query`: longer than {MAX_CHARACTERS} characters", field=field)
    if "\0" in text:
        raise InvalidArgument("Invalid `filter_query`: Illegal input character NUL", field=field)
    try:
        parsed = _read(text, kind)
    except _Refused as error:
        raise InvalidArgument(f"Invalid `filter_query`: {error}", field=field) from error
    except lark.exceptions.UnexpectedInput as error:
        raise InvalidArgument(f"Invalid `filter_query`: Syntax error: {_explain(error, text)}", field=field) from error
    if parsed.type is not ValueType.BOOL:
        shown = text if len(text) < 100 else f"{text[:100]}..."
        message = f"Invalid `filter_query`: Given query string is not a valid boolean expression: {shown}"
        raise InvalidArgument(message, field=field)
    return parsed


class _Refused(ValueError):
    """The query is well-formed and means nothing."""


@lru_cache(maxsize=1)
def _grammar() -> lark.Lark:
    text = resources.files(__package__ or "").joinpath("grammar.lark").read_text()
    return lark.Lark(text, parser="lalr", maybe_placeholders=False)


@lru_cache(maxsize=256)
def _read(text: str, kind: Kind) -> Expression:
    _check_depth(text)
    reader = _Reader(kind)
    result = reader.read(_grammar().parse(text))
    return result


def _check_depth(text: str) -> None:
    """Refuses deep nesting before anything recurses."""
    depth = run = conditions = 0
    for token in _grammar().lex(text):
        if token.type == "LPAR":
            depth += 1
        elif token.type == "RPAR":
            depth -= 1
        run = run + 1 if token.type in {"_NOT", "MINUS", "PLUS"} else 0
        conditions += token.type in {"_AND", "_OR", "STAR", "SLASH", "PLUS", "MINUS"}
        if depth > MAX_DEPTH or run > MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH}")
        if conditions > MAX_CONDITIONS:
            raise _Refused(f"more than {MAX_CONDITIONS} conditions")


def _explain(error: lark.exceptions.UnexpectedInput, text: str) -> str:
    if isinstance(error, lark.exceptions.UnexpectedEOF) or (
        isinstance(error, lark.exceptions.UnexpectedToken) and error.token.type == "$END"
    ):
        return f"Unexpected end of expression [at 1:{len(text) + 1}]"
    where = f"[at {error.line}:{error.column}]"
    if isinstance(error, lark.exceptions.UnexpectedCharacters):
        return f"Illegal input character {error.char!r} {where}"
    token = str(getattr(error, "token", ""))
    return f"Unexpected {token[:50]!r} {where}"


class _Reader:
    """Turns the parse tree into an expression. Recursion is as deep as `_check_depth` allows."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._values = 0

    def read(self, node: Any) -> Expression:
        found: Expression = getattr(self, f"_{node.data}")(*node.children)
        return found

    def _or_test(self, *parts: Any) -> Expression:
        return Logical("OR", tuple(self._bool(part, "OR") for part in parts))

    def _and_test(self, *parts: Any) -> Expression:
        return Logical("AND", tuple(self._bool(part, "AND") for part in parts))

    def _negation(self, part: Any) -> Expression:
        return Not(self._bool(part, "NOT"))

    def _compare(self, left: Any, operator: Any, right: Any) -> Expression:
        sign = "!=" if operator == "<>" else str(operator)
        column = self._enum(left)
        if column is not None:
            if sign not in {"=", "!="}:
                raise _Refused(f"Only =, !=, IN and IS NULL are for {column.name}, not {sign}")
            value = self._enumerator(column, right)
            return (
                _or_null(Comparison(sign, column, value), column) if sign == "!=" else Comparison(sign, column, value)
            )
        first, second = self.read(left), self.read(right)
        for side in (first, second):
            if isinstance(side, Literal) and side.value is None:
                raise _Refused(f"Operands of {sign} cannot be literal NULL")
        _same_type(sign, first, second)
        return Comparison(sign, first, second)

    def _like(self, left: Any, right: Any, operator: str = "LIKE") -> Expression:
        first, second = self.read(left), self.read(right)
        if first.type is not ValueType.STRING or second.type is not ValueType.STRING:
            _no_signature("LIKE", first, second)
        return Comparison(operator, first, second)

    def _not_like(self, left: Any, right: Any) -> Expression:
        return self._like(left, right, "NOT LIKE")

    def _is_in(self, left: Any, values: Any, negated: bool = False) -> Expression:
        column = self._enum(left)
        if column is not None:
            numbers = tuple(self._enumerator(column, value) for value in values.children)
            found = InList(column, numbers, negated)
            return _or_null(found, column) if negated else found
        operand = self.read(left)
        literals = []
        for value in values.children:
            literal = self.read(value)
            if not isinstance(literal, Literal):
                raise _Refused("only literals can be in a list")
            if literal.value is not None:
                _same_type("IN", operand, literal)
            literals.append(literal)
        return InList(operand, tuple(literals), negated)

    def _is_not_in(self, left: Any, values: Any) -> Expression:
        return self._is_in(left, values, negated=True)

    def _between(self, operand: Any, low: Any, high: Any) -> Expression:
        value, first, last = self.read(operand), self.read(low), self.read(high)
        for bound in (first, last):
            _same_type("BETWEEN", value, bound)
        return Logical("AND", (Comparison(">=", value, first), Comparison("<=", value, last)))

    def _not_between(self, operand: Any, low: Any, high: Any) -> Expression:
        return Not(self._between(operand, low, high))

    def _is_null(self, operand: Any, negated: bool = False) -> Expression:
        return IsNull(self._enum(operand) or self.read(operand), negated)

    def _is_not_null(self, operand: Any) -> Expression:
        return self._is_null(operand, negated=True)

    def _is_truth(self, operand: Any, truth: Any) -> Expression:
        value = self._bool(operand, "IS TRUE")
        wanted = Literal(truth.lower() == "true", ValueType.BOOL)
        return Logical("AND", (IsNull(value, negated=True), Comparison("=", value, wanted)))

    def _is_not_truth(self, operand: Any, truth: Any) -> Expression:
        value = self._bool(operand, "IS NOT TRUE")
        other = Literal(truth.lower() != "true", ValueType.BOOL)
        return Logical("OR", (IsNull(value, negated=False), Comparison("=", value, other)))

    def _arithmetic(self, left: Any, operator: Any, right: Any) -> Expression:
        first, second = self.read(left), self.read(right)
        if not first.type.is_number or not second.type.is_number:
            _no_signature(str(operator), first, second)
        double = operator == "/" or ValueType.DOUBLE in {first.type, second.type}
        return Arithmetic(str(operator), (first, second), ValueType.DOUBLE if double else ValueType.INT64)

    def _minus(self, _: Any, operand: Any) -> Expression:
        if operand.data == "integer":
            return self._counted(Literal(-_literal(integer, operand.children[0]), ValueType.INT64))
        value = self.read(operand)
        if isinstance(value, Literal) and isinstance(value.value, int | float) and value.type.is_number:
            return Literal(-value.value, value.type)
        if not value.type.is_number:
            raise _Refused(f"No matching signature for operator - for argument types: {value.type.value}")
        return Arithmetic("-", (value,), value.type)

    def _plus(self, _: Any, operand: Any) -> Expression:
        value = self.read(operand)
        if not value.type.is_number:
            raise _Refused(f"No matching signature for operator + for argument types: {value.type.value}")
        return value

    def _path(self, *names: Any) -> Expression:
        column = self._column(names)
        if column.type is ValueType.ENUM:
            raise _Refused(f"{column.name} can be compared with names only: = X, != X, IN (X, Y), IS NULL")
        return column

    def _integer(self, written: Any) -> Expression:
        value = _literal(integer, written)
        if value == MAX_INT:  # good only with a minus before it
            raise _Refused(f"Invalid integer literal: {written}")
        return self._counted(Literal(value, ValueType.INT64))

    def _float(self, written: Any) -> Expression:
        return self._counted(Literal(float(written), ValueType.DOUBLE))

    def _string(self, written: Any) -> Expression:
        return self._counted(Literal(_literal(unquote, written), ValueType.STRING))

    def _truth(self, written: Any) -> Expression:
        return self._counted(Literal(written.lower() == "true", ValueType.BOOL))

    def _null(self) -> Expression:
        return self._counted(Literal(None, ValueType.INT64))

    def _bool(self, part: Any, operator: str) -> Expression:
        found = self.read(part)
        if found.type is not ValueType.BOOL:
            raise _Refused(f"No matching signature for operator {operator} for argument types: {found.type.value}")
        return found

    def _counted(self, literal: Literal) -> Literal:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _Refused(f"more than {MAX_VALUES} values")
        return literal

    def _column(self, names: Any) -> Column:
        path = [
            _literal(unquote, part) if part.startswith("`") else str(part) for (part,) in (n.children for n in names)
        ]
        try:
            return resolve(self._kind, path)
        except UnknownName as error:
            raise _Refused(str(error)) from error

    def _enum(self, node: Any) -> Column | None:
        """Gives the column if a tree is a state or an event's type, whose values are names."""
        if node.data != "path":
            return None
        column = self._column(node.children)
        return column if column.type is ValueType.ENUM else None

    def _enumerator(self, column: Column, node: Any) -> Literal:
        known = enumerators(self._kind, column)
        if node.data == "path" and len(node.children) == 1:
            name = str(node.children[0].children[0])
            if name in known:
                return self._counted(Literal(known[name], ValueType.ENUM))
            raise _Refused(f"Unsupported enum value specified in the query: {name}; known are {', '.join(known)}")
        if node.data == "integer":
            raise _Refused(f"Unsupported enum value specified in the query: {node.children[0]}")
        raise _Refused(f"No matching signature for {column.name}: its values are names: {', '.join(known)}")


def _or_null(expression: Comparison | InList, column: Column) -> Expression:
    """Not this state: also no state at all."""
    return Logical("OR", (expression, IsNull(column, negated=False)))


def _same_type(operator: str, first: Expression, second: Expression) -> None:
    if first.type is second.type or (first.type.is_number and second.type.is_number):
        return
    _no_signature(operator, first, second)


def _no_signature(operator: str, first: Expression, second: Expression) -> NoReturn:
    types = f"{first.type.value}, {second.type.value}"
    raise _Refused(f"No matching signature for operator {operator} for argument types: {types}")


def _literal(read: Any, written: Any) -> Any:
    try:
        return read(str(written))
    except BadLiteral as error:
        raise _Refused(f"{error} [at {written.line}:{written.column}]") from error
