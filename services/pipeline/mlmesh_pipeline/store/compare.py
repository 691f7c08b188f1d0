"""How columns are compared with what a client gave: alike on SQLite, PostgreSQL and MySQL, whose collations differ.

Strings are equal if their characters are, and are ordered by code point; the case of ASCII letters does not matter to
IS_SUBSTRING alone. (On MySQL it ignores the case of other letters as well.)
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Dialect, LargeBinary, String, and_, cast, func, not_, or_
from sqlalchemy.types import BigInteger, Integer

from mlmesh_pipeline.listing import Operation

_MICROS = 1_000_000
_SORTED_CHARACTERS = 191
"""Of a text without a limit: a page token holds the value that it ends with."""
_ASCII_LOWER = str.maketrans({chr(code): chr(code + 32) for code in range(ord("A"), ord("Z") + 1)})


def is_number(column: Column[Any]) -> bool:
    """Tells whether a column holds numbers (here always times, in microseconds), and not strings."""
    return isinstance(column.type, BigInteger | Integer)


def _is_mysql(dialect: Dialect) -> bool:
    return dialect.name in {"mysql", "mariadb"}


@dataclass(frozen=True, slots=True)
class Order:
    """What a list is ordered by.

    Attributes:
        expression: For ORDER BY, and for comparing with `bound`.
        limit: Characters that count; None: all.
        binary: Whether bytes are compared.
    """

    expression: ColumnElement[Any]
    limit: int | None
    binary: bool

    def shortened(self, value: Any) -> Any:
        """Gives of a value what counts."""
        return value[: self.limit] if self.limit else value

    def bound(self, value: Any) -> Any:
        """Gives a value as the database compares it."""
        return value.encode() if self.binary and isinstance(value, str) else value


def order_of(column: Column[Any], dialect: Dialect) -> Order:
    """Gives how a list is ordered by a column."""
    if is_number(column):
        return Order(column, None, binary=False)
    limit = None if getattr(column.type, "length", None) else _SORTED_CHARACTERS
    expression: ColumnElement[Any] = func.substr(column, 1, limit, type_=String()) if limit else column
    if _is_mysql(dialect):
        return Order(cast(expression, LargeBinary), limit, binary=True)
    return Order(expression.collate("C") if dialect.name == "postgresql" else expression, limit, binary=False)


def compare_time(column: Column[Any], operation: Operation, value: Any, *, whole_seconds: bool) -> ColumnElement[bool]:
    """Gives the condition on a time.

    Args:
        column: Microseconds.
        operation: Any but IS_SUBSTRING.
        value: A number; for IN a list of them.
        whole_seconds: Whether these are seconds, each standing for all its microseconds, and not microseconds.
    """
    if operation == Operation.IN and not whole_seconds:
        return column.in_(value)
    if operation == Operation.IN:
        return or_(*(_within(column, one, _MICROS) for one in value)) if value else column.in_([])
    span = _MICROS if whole_seconds else 1
    first, last = value * span, value * span + span - 1
    conditions: dict[Operation, ColumnElement[bool]] = {
        Operation.EQUALS: _within(column, value, span),
        Operation.NOT_EQUALS: not_(_within(column, value, span)),
        Operation.GREATER_THAN: column > last,
        Operation.GREATER_THAN_EQUALS: column >= first,
        Operation.LESS_THAN: column < first,
        Operation.LESS_THAN_EQUALS: column <= last,
    }
    return conditions[operation]


def _within(column: Column[Any], value: int, span: int) -> ColumnElement[bool]:
    return column == value if span == 1 else column.between(value * span, value * span + span - 1)


def compare_text(column: Column[Any], operation: Operation, value: Any, dialect: Dialect) -> ColumnElement[bool]:
    """Gives the condition on a string.

    Args:
        column: What is compared.
        operation: Any.
        value: A string; for IN a list of them.
        dialect: Of the database.
    """
    mysql = _is_mysql(dialect)
    if operation == Operation.IS_SUBSTRING:
        return _contains(column, value, dialect)
    exact: ColumnElement[Any] = cast(column, LargeBinary) if mysql else column
    if operation == Operation.IN:
        same: ColumnElement[bool] = exact.in_([one.encode() for one in value] if mysql else value)
        return and_(column.in_(value), same) if mysql else same  # the first, for the index
    bound = value.encode() if mysql else value
    if operation == Operation.EQUALS:
        return and_(column == value, exact == bound) if mysql else exact == bound
    ordered = exact.collate("C") if dialect.name == "postgresql" else exact
    conditions: dict[Operation, ColumnElement[bool]] = {
        Operation.NOT_EQUALS: exact != bound,
        Operation.GREATER_THAN: ordered > bound,
        Operation.GREATER_THAN_EQUALS: ordered >= bound,
        Operation.LESS_THAN: ordered < bound,
        Operation.LESS_THAN_EQUALS: ordered <= bound,
    }
    return conditions[operation]


def _contains(column: Column[Any], value: str, dialect: Dialect) -> ColumnElement[bool]:
    if _is_mysql(dialect):
        return func.locate(value.lower().encode(), cast(func.lower(column), LargeBinary)) > 0
    if dialect.name == "postgresql":  # lower() of the collation C knows ASCII alone
        lowered = func.lower(column.collate("C"), type_=String())
        return lowered.contains(value.translate(_ASCII_LOWER), autoescape=True)
    return column.contains(value, autoescape=True)


def holds_exactly(column: Column[Any], part: str, dialect: Dialect) -> ColumnElement[bool]:
    """Gives the condition that a text holds another, case and all."""
    if _is_mysql(dialect):
        return func.locate(part.encode(), cast(column, LargeBinary)) > 0
    function = func.strpos if dialect.name == "postgresql" else func.instr
    return function(column, part) > 0
