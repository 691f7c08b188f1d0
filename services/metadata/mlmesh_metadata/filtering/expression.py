"""A filter_query, understood: names resolved, types checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class ValueType(Enum):
    """What an expression is; the names are GoogleSQL's."""

    INT64 = "INT64"
    DOUBLE = "DOUBLE"
    STRING = "STRING"
    BOOL = "BOOL"
    ENUM = "ENUM"

    @property
    def is_number(self) -> bool:
        """Whether one can calculate with it."""
        return self in {ValueType.INT64, ValueType.DOUBLE}


@dataclass(frozen=True)
class Neighbour:
    """Something next to a node, of which there may be several: one that all conditions on it hold for is looked for.

    Args:
        relation: properties, custom_properties, contexts, parent_contexts, child_contexts or events.
        alias: The property's name, or what follows the underscore in `contexts_0`.
    """

    relation: str
    alias: str


@dataclass(frozen=True)
class Column:
    """An attribute.

    Args:
        name: id, uri, type, int_value, ...
        type: What it holds.
        neighbour: Whose it is; None: the node's own.
    """

    name: str
    type: ValueType
    neighbour: Neighbour | None = None


@dataclass(frozen=True)
class Literal:
    """A value written in the query; None is NULL."""

    value: int | float | str | bool | None
    type: ValueType


@dataclass(frozen=True)
class Arithmetic:
    """A sum, difference, product, quotient or (one operand) a negation."""

    operator: str
    operands: tuple["Expression", ...]
    type: ValueType


@dataclass(frozen=True)
class Comparison:
    """=, !=, <, <=, >, >=, LIKE, NOT LIKE; BETWEEN is two of them."""

    operator: str
    left: "Expression"
    right: "Expression"
    type: ValueType = ValueType.BOOL


@dataclass(frozen=True)
class InList:
    """IN (...) and NOT IN (...)."""

    operand: "Expression"
    values: tuple[Literal, ...]
    negated: bool
    type: ValueType = ValueType.BOOL


@dataclass(frozen=True)
class IsNull:
    """IS NULL and IS NOT NULL."""

    operand: "Expression"
    negated: bool
    type: ValueType = ValueType.BOOL


@dataclass(frozen=True)
class Not:
    """NOT."""

    operand: "Expression"
    type: ValueType = ValueType.BOOL


@dataclass(frozen=True)
class Logical:
    """AND or OR of two and more."""

    operator: str
    operands: tuple["Expression", ...]
    type: ValueType = ValueType.BOOL


Expression: TypeAlias = Column | Literal | Arithmetic | Comparison | InList | IsNull | Not | Logical


def columns_of(expression: Expression) -> Iterator[Column]:
    """Gives the attributes that an expression speaks of."""
    todo: list[Expression] = [expression]
    while todo:
        match todo.pop():
            case Column() as column:
                yield column
            case Arithmetic(operands=operands) | Logical(operands=operands):
                todo += operands
            case Comparison(left=left, right=right):
                todo += [left, right]
            case InList(operand=operand) | IsNull(operand=operand) | Not(operand=operand):
                todo.append(operand)
            case _:
                pass


def neighbours_of(expression: Expression) -> frozenset[Neighbour]:
    """Gives the neighbours that an expression speaks of."""
    return frozenset(column.neighbour for column in columns_of(expression) if column.neighbour is not None)


def own_columns_of(expression: Expression) -> frozenset[str]:
    """Gives the names of the node's own attributes that an expression speaks of."""
    return frozenset(column.name for column in columns_of(expression) if column.neighbour is None)
