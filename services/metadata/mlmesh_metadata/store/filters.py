"""A filter_query as SQL. Every value is a bound parameter.

MLMD joins a node with each neighbour that the query names, so a node without such a neighbour never matches, and all
conditions on one alias are about one neighbour. Here the same is said with EXISTS and IN, condition by condition, so
that a node is found once, and the database can begin at the rarest condition.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mlmesh_metadata.filtering.expression import (
    Arithmetic,
    Column,
    Comparison,
    Expression,
    InList,
    IsNull,
    Literal,
    Logical,
    Neighbour,
    Not,
    ValueType,
    neighbours_of,
    own_columns_of,
)
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, Kind
from mlmesh_metadata.store.rows import tables_of
from mlmesh_metadata.tables import associations, attributions, contexts, events, parent_contexts, types

RARE = 1000
"""Up to so many matching neighbours the search begins at them; with more it goes through the nodes in order."""

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "LIKE": lambda left, right: left.like(right),
    "NOT LIKE": lambda left, right: left.not_like(right),
}
_CALCULATE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: sa.cast(left, sa.Double) / right,
}
_TYPES = {
    ValueType.INT64: sa.BigInteger,
    ValueType.DOUBLE: sa.Double,
    ValueType.STRING: sa.Text,
    ValueType.BOOL: sa.Boolean,
}


def condition(connection: sa.Connection, kind: Kind, wanted: Expression) -> sa.ColumnElement[bool]:
    """Gives the condition on the node's table.

    Args:
        connection: Asked how rare neighbours are, which decides how the condition is written.
        kind: Of the nodes.
        wanted: The query.
    """
    return sa.and_(*(_part(connection, kind, part) for part in _parts(wanted)))


@dataclass
class _Part:
    """Conditions that share neighbours."""

    conditions: list[Expression]
    neighbours: frozenset[Neighbour]


def _parts(wanted: Expression) -> list[_Part]:
    """Cuts a query into parts that hold or fail on their own."""
    found: list[_Part] = []
    for one in _conjuncts(wanted):
        part = _Part([one], neighbours_of(one))
        for other in [other for other in found if part.neighbours & other.neighbours]:
            found.remove(other)
            part = _Part([*other.conditions, *part.conditions], part.neighbours | other.neighbours)
        found.append(part)
    return found


def _conjuncts(wanted: Expression) -> Iterator[Expression]:
    todo = [wanted]
    while todo:
        one = todo.pop(0)
        if isinstance(one, Logical) and one.operator == "AND":
            todo = [*one.operands, *todo]
        else:
            yield one


def _part(connection: sa.Connection, kind: Kind, part: _Part) -> sa.ColumnElement[bool]:
    nodes = tables_of(kind).nodes
    own = frozenset().union(*(own_columns_of(one) for one in part.conditions))
    if not part.neighbours:
        if own == {"type"}:
            return _of_types(connection, kind, part.conditions)
        return _all(part.conditions, _Scope(kind, {}))
    sources = {neighbour: _source(kind, neighbour) for neighbour in part.neighbours}
    matching = _all(part.conditions, _Scope(kind, sources))
    if len(sources) == 1 and not own:
        (source,) = sources.values()
        rows = sa.select(source.key).select_from(source.table).where(source.condition, matching)
        probe = sa.select(sa.func.count()).select_from(rows.limit(RARE + 1).subquery())
        if (connection.scalar(probe) or 0) <= RARE:
            return nodes.c.id.in_(rows)
    joined = sa.select(sa.literal(1)).where(matching)
    for source in sources.values():
        joined = joined.select_from(source.table).where(source.condition, source.key == nodes.c.id)
    return joined.correlate(nodes).exists()


def _of_types(connection: sa.Connection, kind: Kind, conditions: Sequence[Expression]) -> sa.ColumnElement[bool]:
    """Finds the types first: with their ids at hand an index answers."""
    matching = _all(conditions, _Scope(kind, {}, type_name=types.c.name))
    ids = connection.scalars(sa.select(types.c.id).where(types.c.type_kind == kind.number, matching)).all()
    type_id = tables_of(kind).nodes.c.type_id
    return type_id == ids[0] if len(ids) == 1 else type_id.in_(ids)


@dataclass(frozen=True)
class _Source:
    """Where neighbours of one alias are.

    Args:
        table: To select from.
        key: Column with the node's id.
        columns: Attributes by name.
        condition: Which rows are such neighbours.
    """

    table: sa.FromClause
    key: sa.ColumnElement[int]
    columns: dict[str, sa.ColumnElement[Any]]
    condition: sa.ColumnElement[bool]


def _source(kind: Kind, neighbour: Neighbour) -> _Source:
    owned = tables_of(kind)
    if neighbour.relation in {"properties", "custom_properties"}:
        table = owned.properties.alias()
        wanted = sa.and_(
            table.c.name == neighbour.alias,
            table.c.is_custom_property == sa.literal(neighbour.relation == "custom_properties"),
        )
        return _Source(table, table.c[owned.key.name], dict(table.c.items()), wanted)
    if neighbour.relation == "events":
        event = events.alias()
        return _Source(event, event.c[f"{kind.name}_id"], dict(event.c.items()), sa.true())
    context, named = contexts.alias(), types.alias()
    if kind is CONTEXT:
        link = parent_contexts.alias()
        ends = (link.c.context_id, link.c.parent_context_id)
        key, other = ends if neighbour.relation == "parent_contexts" else ends[::-1]
    else:
        link = (attributions if kind is ARTIFACT else associations).alias()
        key, other = link.c[f"{kind.name}_id"], link.c.context_id
    joined = link.join(context, context.c.id == other).join(named, named.c.id == context.c.type_id)
    return _Source(joined, key, {**dict(context.c.items()), "type": named.c.name}, sa.true())


@dataclass(frozen=True)
class _Scope:
    """What names mean.

    Args:
        kind: Of the nodes.
        sources: Neighbours.
        type_name: The node's type's name, where that is at hand.
    """

    kind: Kind
    sources: dict[Neighbour, _Source]
    type_name: sa.ColumnElement[Any] | None = None

    def column(self, column: Column) -> sa.ColumnElement[Any]:
        """Gives a column."""
        if column.neighbour is not None:
            return self.sources[column.neighbour].columns[column.name]
        nodes = tables_of(self.kind).nodes
        if column.name != "type":
            return nodes.c[column.name]
        if self.type_name is not None:
            return self.type_name
        return sa.select(types.c.name).where(types.c.id == nodes.c.type_id).correlate(nodes).scalar_subquery()


def _all(conditions: Sequence[Expression], scope: _Scope) -> sa.ColumnElement[bool]:
    return sa.and_(*(_sql(one, scope) for one in conditions))


def _sql(expression: Expression, scope: _Scope) -> sa.ColumnElement[Any]:
    match expression:
        case Column():
            return scope.column(expression)
        case Literal(value=None):
            return sa.null()
        case Literal(value=bool(value)):
            return sa.true() if value else sa.false()
        case Literal(value=value, type=kind):
            return sa.literal(value, _TYPES.get(kind, sa.BigInteger)())
        case Comparison(operator=sign, left=left, right=right):
            return _compare(sign, _sql(left, scope), _sql(right, scope))
        case InList(operand=operand, values=values, negated=negated):
            return _in(_sql(operand, scope), [value.value for value in values], negated)
        case IsNull(operand=operand, negated=negated):
            found = _sql(operand, scope)
            return found.is_not(None) if negated else found.is_(None)
        case Not(operand=operand):
            return sa.not_(_sql(operand, scope))
        case Logical(operator=sign, operands=operands):
            parts = [_sql(operand, scope) for operand in operands]
            return sa.and_(*parts) if sign == "AND" else sa.or_(*parts)
        case Arithmetic(operator=sign, operands=(one,)):
            return -_sql(one, scope)
        case Arithmetic(operator=sign, operands=(left, right)):
            return _CALCULATE[sign](_sql(left, scope), _sql(right, scope))  # type: ignore[no-any-return]
        case _:
            raise AssertionError(expression)


def _compare(sign: str, left: sa.ColumnElement[Any], right: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    for one, other in ((left, right), (right, left)):
        if isinstance(other, sa.True_ | sa.False_) and sign in {"=", "!="}:  # = TRUE is not SQL everywhere
            wanted = isinstance(other, sa.True_) == (sign == "=")
            return one if wanted else sa.not_(one)
    return _COMPARE[sign](left, right)  # type: ignore[no-any-return]


def _in(operand: sa.ColumnElement[Any], values: Sequence[Any], negated: bool) -> sa.ColumnElement[Any]:
    known = [value for value in values if value is not None]
    if negated:
        # x NOT IN (..., NULL) is never true.
        return sa.and_(operand.not_in(known), sa.false()) if len(known) < len(values) else operand.not_in(known)
    return operand.in_(known)
