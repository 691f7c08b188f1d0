"""Lists by keyset: a page costs the same wherever it begins, and stays put while rows come and go."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.paging import decode_page_token, encode_page_token
from sqlalchemy import Column, ColumnElement, Connection, Dialect, Row, Table, and_, func, or_, select

from mlmesh_pipeline.listing import MAX_PREDICATES, ListQuery, Operation, Page, Predicate
from mlmesh_pipeline.store.compare import Order, compare_text, compare_time, holds_exactly, is_number, order_of

T = TypeVar("T")
MAX_VALUES = 1000
MAX_CHARACTERS = 10_000
MAX_SECONDS = 253_402_300_799
"""The end of the year 9999."""
MAX_PAGE_BYTES = 16 << 20
_LONGEST_EMBEDDED = 1000


def list_page(
    connection: Connection,
    table: Table,
    fields: Mapping[str, Column[Any]],
    *,
    key: Column[Any],
    where: Mapping[Column[Any], str],
    query: ListQuery,
    make: Callable[[Row[Any]], T],
    tags: Column[Any] | None = None,
    weigh: Callable[[Sequence[Row[Any]]], list[int]] | None = None,
) -> Page[T]:
    """Lists a page of a table.

    A token may come back with the filter and order that it was given for, or (as KFP allows) without both.
    A page ends early, after at least one row, where its rows would be too much for an answer.

    Args:
        connection: Where to read.
        table: What to read.
        fields: Columns that can be filtered and sorted, by the API's names.
        key: The primary key; breaks ties of the order.
        where: What is listed, besides the filter: a token is good for that alone.
        query: The request.
        make: Turns a row into what is listed.
        tags: Column that `tags.NAME` in a filter looks into.
        weigh: Gives the bytes that go with each row.

    Raises:
        InvalidArgument: A field is not known, a value does not fit, or the token is of another request.
    """
    scope = [table.name, *((column.name, value) for column, value in where.items())]
    given = _position(query.page_token, scope, query) if query.page_token else None
    sort_by, predicates = (query.sort_by, query.predicates) if given is None else given[1:]
    dialect = connection.dialect
    conditions = [
        *(column == value for column, value in where.items()),
        *(_condition(predicate, fields, tags, dialect) for predicate in _limited(predicates)),
    ]
    column, descending = _order(sort_by, fields)
    value_of = order_of(column, dialect)
    if given is None:
        total = connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()
    else:
        # Counting costs more than all the rest of a page, so the token has what the first page counted.
        value, identity, total = given[0]
        if isinstance(value, int) != is_number(column):
            raise _bad_token()
        conditions.append(_after(value_of, value_of.bound(value), key, identity, descending))
    order = (value_of.expression.desc(), key.desc()) if descending else (value_of.expression.asc(), key.asc())
    rows = connection.execute(select(table).where(*conditions).order_by(*order).limit(query.page_size + 1)).all()
    token = ""
    size = min(query.page_size, _fitting(weigh(rows))) if weigh else query.page_size
    if len(rows) > size:
        rows = rows[:size]
        last = rows[-1]._mapping
        position = [value_of.shortened(last[column]), last[key], total]
        token = encode_page_token([position, *_question(sort_by, predicates)], scope)
    return Page([make(row) for row in rows], total, token)


def _fitting(weights: Sequence[int]) -> int:
    """Gives how many of the first rows an answer can hold, at least one."""
    whole = 0
    for number, weight in enumerate(weights):
        whole += weight
        if whole > MAX_PAGE_BYTES and number:
            return number
    return len(weights) or 1


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
        raise InvalidArgument(f"unknown field {words[0][:100]!r}; known: {', '.join(sorted(fields))}", field="sort_by")
    return fields[words[0]], direction == "desc"


def _condition(
    predicate: Predicate, fields: Mapping[str, Column[Any]], tags: Column[Any] | None, dialect: Dialect
) -> ColumnElement[bool]:
    if tags is not None and predicate.key.startswith("tags."):
        return _tag(predicate, tags, dialect)
    column = fields.get(predicate.key)
    if column is None:
        raise InvalidArgument(
            f"unknown key {predicate.key[:100]!r}; known: {', '.join(sorted(fields))}", field="filter"
        )
    value, operation = predicate.value, predicate.operation
    values = value if isinstance(value, list) else [value]
    wanted = int if is_number(column) else str
    if not all(type(item) is wanted for item in values):
        kinds = "a time, or with a number of seconds since 1970" if wanted is int else "a string"
        raise InvalidArgument(f"{predicate.key} is compared with {kinds}", field="filter")
    if (operation == Operation.IN) != isinstance(value, list):
        kinds = "a list of values" if operation == Operation.IN else "one value"
        raise InvalidArgument(f"{operation} needs {kinds} ({predicate.key})", field="filter")
    if len(values) > MAX_VALUES:
        raise InvalidArgument(f"{predicate.key}: at most {MAX_VALUES} values", field="filter")
    if wanted is int:
        if operation == Operation.IS_SUBSTRING:
            raise InvalidArgument(f"IS_SUBSTRING is for strings, {predicate.key} is none", field="filter")
        if any(abs(item) > MAX_SECONDS * (1 if predicate.whole_seconds else 1_000_000) for item in values):
            raise InvalidArgument(f"{predicate.key}: no such time", field="filter")
        return compare_time(column, operation, value, whole_seconds=predicate.whole_seconds)
    for item in values:
        if not _is_text(item):
            message = f"{predicate.key}: at most {MAX_CHARACTERS} characters, without NUL"
            raise InvalidArgument(message, field="filter")
    return compare_text(column, operation, value, dialect)


def _tag(predicate: Predicate, tags: Column[Any], dialect: Dialect) -> ColumnElement[bool]:
    """Tags are JSON with sorted keys, as `codec.dump` writes it: a pair is found as text."""
    name = predicate.key.removeprefix("tags.")
    if predicate.operation != Operation.EQUALS or not _is_text(predicate.value) or not _is_text(name):
        raise InvalidArgument("tags can only be compared by EQUALS with a string", field="filter")
    pair = json.dumps({name: predicate.value}, separators=(",", ":"), ensure_ascii=False)[1:-1]
    return or_(*(holds_exactly(tags, start + pair + end, dialect) for start in "{," for end in "},"))


def _is_text(value: Any) -> bool:
    """Tells whether every database can be asked for it."""
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _question(sort_by: str, predicates: Sequence[Predicate]) -> list[Any]:
    """Gives order and filter for a token: themselves or, where that is much, a hash."""
    found = [" ".join(sort_by.split()), [[p.key, p.operation.value, p.value, p.whole_seconds] for p in predicates]]
    text = json.dumps(found)
    return found if len(text) <= _LONGEST_EMBEDDED else [hashlib.sha256(text.encode()).hexdigest(), None]


def _position(
    token: str, scope: list[Any], query: ListQuery
) -> tuple[tuple[Any, str, int], str, tuple[Predicate, ...]]:
    """Reads a token; a client can make up one whose content is anything.

    Returns:
        Where the page begins (value, key, total), the order, the filter.
    """
    match decode_page_token(token, scope):
        case [[value, identity, int(total)], str(sort_by), question]:
            is_position = type(total) is int and 0 <= total < 2**31 and _is_text(identity)
            is_value = _is_text(value) or (type(value) is int and abs(value) < 2**63)
            if not is_position or not is_value:
                raise _bad_token()
        case _:
            raise _bad_token()
    position = (value, identity, total)
    if query.sort_by.split() or query.predicates:
        if _question(query.sort_by, query.predicates) != [sort_by, question]:
            raise _bad_token()
        return position, query.sort_by, query.predicates
    if not isinstance(question, list):
        raise InvalidArgument("give sort_by and filter again: they are too long for the token", field="page_token")
    return position, sort_by, tuple(_predicate(one) for one in question)


def _predicate(content: Any) -> Predicate:
    match content:
        case [str(key), str(operation), value, bool(whole_seconds)] if operation in Operation.__members__:
            return Predicate(key, Operation(operation), value, whole_seconds)
    raise _bad_token()


def _bad_token() -> InvalidArgument:
    return InvalidArgument("must be a token from an earlier answer to the same list request", field="page_token")


def _after(value_of: Order, value: Any, key: Column[Any], identity: str, descending: bool) -> ColumnElement[bool]:
    column = value_of.expression
    if column is key:
        after: ColumnElement[bool] = key < identity if descending else key > identity
        return after
    if descending:
        return or_(column < value, and_(column == value, key < identity))
    return or_(column > value, and_(column == value, key > identity))
