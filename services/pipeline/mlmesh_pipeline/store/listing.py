"""Lists by keyset: a page costs the same wherever it begins, and stays put while rows come and go."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.paging import decode_page_token, encode_page_token
from sqlalchemy import Column, ColumnElement, Connection, Integer, Row, String, Table, and_, func, or_, select
from sqlalchemy.types import BigInteger

from mlmesh_pipeline.listing import MAX_PREDICATES, ListQuery, Operation, Page, Predicate

T = TypeVar("T")


def list_page(
    connection: Connection,
    table: Table,
    fields: Mapping[str, Column[Any]],
    *,
    key: Column[Any],
    where: Sequence[ColumnElement[bool]],
    query: ListQuery,
    make: Callable[[Row[Any]], T],
    tags: Column[Any] | None = None,
) -> Page[T]:
    """Lists a page of a table.

    Args:
        connection: Where to read.
        table: What to read.
        fields: Columns that can be filtered and sorted, by the API's names.
        key: The primary key; breaks ties of the order.
        where: What holds besides the filter.
        query: The request.
        make: Turns a row into what is listed.
        tags: Column that `tags.NAME` in a filter looks into.

    Raises:
        InvalidArgument: A field is not known, a value does not fit, or the token is of another request.
    """
    conditions = [*where, *(_condition(predicate, fields, tags) for predicate in _limited(query.predicates))]
    column, descending = _order(query.sort_by, fields)
    signature = _signature(query)
    page_conditions = conditions
    if query.page_token:
        # Counting costs more than all the rest of a page, so the token has what the first page counted.
        value, identity, total = _position(query.page_token, signature, column)
        page_conditions = [*conditions, _after(value, identity, column, key, descending)]
    else:
        total = connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()
    order = (column.desc(), key.desc()) if descending else (column.asc(), key.asc())
    rows = connection.execute(select(table).where(*page_conditions).order_by(*order).limit(query.page_size + 1)).all()
    token = ""
    if len(rows) > query.page_size:
        rows = rows[: query.page_size]
        last = rows[-1]._mapping
        token = encode_page_token([last[column], last[key], total], signature)
    return Page([make(row) for row in rows], total, token)


def _limited(predicates: Sequence[Predicate]) -> Sequence[Predicate]:
    if len(predicates) > MAX_PREDICATES:
        raise InvalidArgument(f"must have at most {MAX_PREDICATES} predicates", field="filter")
    return predicates


def _order(sort_by: str, fields: Mapping[str, Column[Any]]) -> tuple[Column[Any], bool]:
    words = sort_by.split()
    if not words:
        return fields["created_at"], False
    direction = words[1].lower() if len(words) == 2 else "asc"
    if len(words) > 2 or direction not in {"asc", "desc"}:
        raise InvalidArgument("must be 'FIELD', 'FIELD asc' or 'FIELD desc'", field="sort_by")
    if words[0] not in fields:
        raise InvalidArgument(f"unknown field {words[0]!r}; known: {', '.join(sorted(fields))}", field="sort_by")
    return fields[words[0]], direction == "desc"


def _condition(
    predicate: Predicate, fields: Mapping[str, Column[Any]], tags: Column[Any] | None
) -> ColumnElement[bool]:
    if tags is not None and predicate.key.startswith("tags."):
        return _tag(predicate, tags)
    column = fields.get(predicate.key)
    if column is None:
        raise InvalidArgument(f"unknown key {predicate.key!r}; known: {', '.join(sorted(fields))}", field="filter")
    value = predicate.value
    values = value if isinstance(value, list) else [value]
    wanted = int if isinstance(column.type, BigInteger | Integer) else str
    if not all(isinstance(item, wanted) for item in values):
        raise InvalidArgument(
            f"{predicate.key} is compared with {'a time or a number' if wanted is int else 'a string'}", field="filter"
        )
    operation = predicate.operation
    if (operation == Operation.IN) != isinstance(value, list):
        raise InvalidArgument(f"{operation} does not go with this kind of value ({predicate.key})", field="filter")
    if operation == Operation.IN:
        found: ColumnElement[bool] = column.in_(values[:1000])
        return found
    if operation == Operation.IS_SUBSTRING:
        if not isinstance(column.type, String):
            raise InvalidArgument(f"IS_SUBSTRING is for strings, {predicate.key} is none", field="filter")
        part: ColumnElement[bool] = column.contains(value, autoescape=True)
        return part
    comparisons: dict[Operation, ColumnElement[bool]] = {
        Operation.EQUALS: column == value,
        Operation.NOT_EQUALS: column != value,
        Operation.GREATER_THAN: column > value,
        Operation.GREATER_THAN_EQUALS: column >= value,
        Operation.LESS_THAN: column < value,
        Operation.LESS_THAN_EQUALS: column <= value,
    }
    return comparisons[operation]


def _tag(predicate: Predicate, tags: Column[Any]) -> ColumnElement[bool]:
    """Tags are JSON with sorted keys, as `codec.dump` writes it: a pair is found as text."""
    if predicate.operation != Operation.EQUALS or not isinstance(predicate.value, str):
        raise InvalidArgument("tags can only be compared by EQUALS with a string", field="filter")
    name = predicate.key.removeprefix("tags.")
    pair = json.dumps({name: predicate.value}, separators=(",", ":"), ensure_ascii=False)[1:-1]
    inner = [tags.contains(start + pair + end, autoescape=True) for start in "{," for end in "},"]
    return or_(*inner)


def _position(token: str, signature: list[Any], column: Column[Any]) -> tuple[Any, str, int]:
    """Reads a token; a client can make up one whose content is anything."""
    wanted = int if isinstance(column.type, BigInteger | Integer) else str
    match decode_page_token(token, signature):
        case [value, str(identity), int(total)] if type(value) is wanted and type(total) is int and 0 <= total < 2**31:
            if not isinstance(value, int) or abs(value) < 2**63:
                return value, identity, total
    raise InvalidArgument("must be a token from an earlier answer to the same list request", field="page_token")


def _after(value: Any, identity: str, column: Column[Any], key: Column[Any], descending: bool) -> ColumnElement[bool]:
    if column is key:
        after: ColumnElement[bool] = key < identity if descending else key > identity
        return after
    if descending:
        return or_(column < value, and_(column == value, key < identity))
    return or_(column > value, and_(column == value, key > identity))


def _signature(query: ListQuery) -> list[Any]:
    return [query.sort_by.split(), [[p.key, p.operation.value, p.value] for p in query.predicates]]
