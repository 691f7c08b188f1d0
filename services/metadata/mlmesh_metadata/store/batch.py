"""New nodes that are stored together: their ids are taken first, the rows written in one go."""

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from mlmesh_metadata.kinds import KINDS, Kind
from mlmesh_metadata.store.prepared import Prepared
from mlmesh_metadata.store.rows import tables_of


class Batch:
    """New nodes of a kind, in one transaction.

    Args:
        kind: Of the nodes.
        ids: To be given to them.
    """

    def __init__(self, kind: Kind, ids: Iterator[int]) -> None:
        self._kind = kind
        self._ids = ids
        self._rows: list[tuple[Any, ...]] = []

    def add(self, columns: Mapping[str, Any]) -> int:
        """Adds a node, all its columns but the id; gives its id."""
        node_id = next(self._ids)
        self._rows.append((node_id, *(columns[name] for name in _COLUMNS[self._kind.name])))
        return node_id

    def write(self, connection: sa.Connection) -> None:
        """Writes what was added.

        Raises:
            sqlalchemy.exc.IntegrityError: One of them breaks a constraint; which one is not said.
        """
        rows, self._rows = self._rows, []
        _INSERTS[self._kind.name].run_tuples(connection, ("id", *_COLUMNS[self._kind.name]), rows)


def reserve_ids(connection: sa.Connection, kind: Kind, count: int) -> range | list[int] | None:
    """Takes ids for new nodes.

    SQLite has one writer at a time and this transaction is it, so the ids that come next are known. PostgreSQL's
    sequence gives as many as asked for. MySQL cannot say beforehand: None.

    Args:
        connection: Of a transaction that writes.
        kind: Of the nodes.
        count: How many.
    """
    dialect = connection.dialect.name
    if dialect == "sqlite":
        last = _LAST_IDS[kind.name].rows(connection, {})[0][0]
        return range(last + 1, last + 1 + count)
    if dialect == "postgresql":
        return [row[0] for row in _NEXT_IDS[kind.name].rows(connection, {"count": count})]
    return None


_ZERO: sa.ColumnElement[int] = sa.literal_column("0")
_COLUMNS = {
    kind.name: tuple(column.name for column in tables_of(kind).nodes.c if column.name != "id") for kind in KINDS
}
_INSERTS = {
    kind.name: Prepared(
        sa.insert(tables_of(kind).nodes)
        .values({name: sa.bindparam(name) for name in ("id", *_COLUMNS[kind.name])})
        .inline()
    )
    for kind in KINDS
}
_LAST_IDS = {
    # AUTOINCREMENT: an id is never given again, not even that of a row that was taken away.
    kind.name: Prepared(
        sa.select(
            sa.func.max(
                sa.select(sa.func.coalesce(sa.func.max(sa.column("seq")), _ZERO))
                .select_from(sa.table("sqlite_sequence"))
                .where(sa.column("name") == sa.literal_column(f"'{tables_of(kind).nodes.name}'"))
                .scalar_subquery(),
                sa.select(sa.func.coalesce(sa.func.max(tables_of(kind).nodes.c.id), _ZERO)).scalar_subquery(),
            )
        )
    )
    for kind in KINDS
}


def _next_ids(table: sa.Table) -> Prepared:
    sequence = sa.func.pg_get_serial_sequence(sa.literal_column(f"'{table.name}'"), sa.literal_column("'id'"))
    numbers = sa.func.generate_series(sa.literal_column("1"), sa.bindparam("count"))
    return Prepared(sa.select(sa.func.nextval(sequence)).select_from(numbers))


_NEXT_IDS = {kind.name: _next_ids(tables_of(kind).nodes) for kind in KINDS}
