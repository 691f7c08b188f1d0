"""Statements that run often, compiled once for each kind of database and handed straight to its driver.

SQLAlchemy writes the SQL, so that one description serves every database; running it through SQLAlchemy each time takes
some ten times as long as SQLite needs for the work itself (see bench/bench_metadata.py).
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

MAX_VALUES = 512
"""Values in one IN (...): far below every database's limit on parameters."""


_NAMES = [f"in_{number}" for number in range(MAX_VALUES)]


class Prepared:
    """A statement.

    Args:
        statement: Its parameters are named by `sa.bindparam`; an INSERT takes the columns that it names.
    """

    def __init__(self, statement: sa.sql.base.Executable) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, list[str] | None]] = {}

    def rows(self, connection: sa.Connection, values: Mapping[str, Any]) -> list[Any]:
        """Runs a query and gives its rows as tuples."""
        cursor = self._run(connection, values)
        found: list[Any] = cursor.fetchall()
        cursor.close()
        return found

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> int:
        """Runs a statement that gives nothing; tells how many rows it is about."""
        cursor = self._run(connection, values)
        count = int(cursor.rowcount)
        cursor.close()
        return count

    def run_each(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Runs a statement once for each row."""
        if not rows:
            return
        names = self._for(connection)[1]
        self._each(connection, [tuple(row[name] for name in names) for row in rows] if names is not None else rows)

    def run_tuples(self, connection: sa.Connection, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
        """Runs a statement once for each row.

        Args:
            connection: Of a transaction.
            columns: What the tuples hold, in their order.
            rows: The tuples.
        """
        if not rows:
            return
        names = self._for(connection)[1]
        if names is None:
            self._each(connection, [dict(zip(columns, row, strict=True)) for row in rows])
        elif tuple(names) == columns:
            self._each(connection, rows)
        else:
            pick = operator.itemgetter(*(columns.index(name) for name in names))
            self._each(connection, [pick(row) for row in rows])

    def _each(self, connection: sa.Connection, parameters: Sequence[Any]) -> None:
        sql, _ = self._for(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(sql, parameters)
        except Exception as error:
            cursor.close()  # see _run
            raise _wrapped(connection, sql, error) from error
        cursor.close()

    def insert(self, connection: sa.Connection, values: Mapping[str, Any]) -> int:
        """Runs an INSERT of one row; gives the new id.

        Raises:
            sqlalchemy.exc.IntegrityError: A constraint forbids it.
        """
        cursor = self._run(connection, values)
        new_id = int(cursor.fetchone()[0]) if connection.dialect.name == "postgresql" else int(cursor.lastrowid)
        cursor.close()
        return new_id

    def _run(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any:
        sql, names = self._for(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(sql, tuple([values[name] for name in names]) if names is not None else values)
        except Exception as error:
            # The error's traceback keeps the cursor. Collected later, it would wait for its SQLite connection, which
            # may by then wait for the database's lock, with the interpreter held: nobody could give the lock back.
            cursor.close()
            raise _wrapped(connection, sql, error) from error
        return cursor

    def _for(self, connection: sa.Connection) -> tuple[str, list[str] | None]:
        dialect = connection.dialect
        known = self._compiled.get(dialect.name)
        if known is None:
            statement: Any = self._statement
            if dialect.name == "postgresql" and isinstance(statement, sa.Insert) and "id" in statement.table.c:
                statement = statement.returning(statement.table.c.id)
            compiled = statement.compile(dialect=dialect)
            names = compiled.positiontup
            known = (str(compiled), list(names) if names is not None else None)
            self._compiled[dialect.name] = known
        return known


class PreparedIn:
    """A query whose condition has a list of values.

    Args:
        make: Given the list's parameters, makes the query.
    """

    def __init__(self, make: Callable[[list[sa.BindParameter[Any]]], sa.sql.base.Executable]) -> None:
        self._make = make
        self._sizes: dict[int, Prepared] = {}

    def rows(self, connection: sa.Connection, values: Iterable[Any], **others: Any) -> Iterator[Any]:
        """Gives the rows for all values, some hundred values at a time."""
        wanted = list(values)
        for start in range(0, len(wanted), MAX_VALUES):
            some = wanted[start : start + MAX_VALUES]
            # A few sizes serve all: the last value is repeated.
            size = 1 << (len(some) - 1).bit_length()
            some += some[-1:] * (size - len(some))
            others.update(zip(_NAMES[:size], some, strict=True))
            yield from self._of(size).rows(connection, others)

    def _of(self, size: int) -> Prepared:
        known = self._sizes.get(size)
        if known is None:
            known = Prepared(self._make([sa.bindparam(name) for name in _NAMES[:size]]))
            self._sizes[size] = known
        return known


def insert_of(table: sa.Table, *columns: str) -> Prepared:
    """Makes an INSERT that names its columns."""
    return Prepared(sa.insert(table).values({name: sa.bindparam(name) for name in columns}))


class PreparedIgnore:
    """An INSERT that does nothing where the row is there already.

    Args:
        table: Has a unique key.
        columns: What is inserted.
    """

    def __init__(self, table: sa.Table, *columns: str) -> None:
        values: dict[str, Any] = {name: sa.bindparam(name) for name in columns}
        self._statements = {
            "sqlite": Prepared(sqlite.insert(table).values(values).on_conflict_do_nothing()),
            "postgresql": _NoId(postgresql.insert(table).values(values).on_conflict_do_nothing()),
            "mysql": Prepared(mysql.insert(table).values(values).prefix_with("IGNORE")),
        }
        self._statements["mariadb"] = self._statements["mysql"]

    def run_each(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows."""
        self._statements[connection.dialect.name].run_each(connection, rows)


class _NoId(Prepared):
    """An INSERT whose new id nobody asks for."""

    def _for(self, connection: sa.Connection) -> tuple[str, list[str] | None]:
        known = self._compiled.get(connection.dialect.name)
        if known is None:
            compiled: Any = self._statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
            known = (str(compiled), list(compiled.positiontup) if compiled.positiontup is not None else None)
            self._compiled[connection.dialect.name] = known
        return known


def _wrapped(connection: sa.Connection, sql: str, error: Exception) -> BaseException:
    """Gives the driver's error as SQLAlchemy's, as if it had run the statement."""
    driver = connection.dialect.loaded_dbapi
    if not isinstance(error, driver.Error):
        return error
    return sa.exc.DBAPIError.instance(sql, None, error, driver.Error, hide_parameters=True, dialect=connection.dialect)
