"""SQLAlchemy set up the way every service needs it: SQLite in WAL mode, PostgreSQL or MySQL by URL.

Durability on SQLite: with WAL, `synchronous=NORMAL` survives the death of the process (kill -9) at any instant; only
`FULL` (durable=True) also survives the loss of power of the machine. See https://sqlite.org/pragma.html#pragma_synchronous.
"""

import random
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from mlmesh_kit.errors import InvalidArgument, Unavailable

T = TypeVar("T")

BUSY_TIMEOUT_SECONDS = 10.0
_READ_ONLY = "mlmesh_read_only"
# Deadlock and serialisation failures: PostgreSQL's SQLSTATEs and MySQL's error numbers. The transaction was undone.
_RETRY_SQLSTATES = {"40001", "40P01", "55P03"}
_RETRY_MYSQL = {1205, 1213, 1020}


def create_engine(url: str, *, durable: bool = False, pool_size: int = 16, echo: bool = False) -> sa.Engine:
    """Makes the engine of a service.

    Args:
        url: SQLAlchemy URL. A relative or missing SQLite folder is made.
        durable: On SQLite, survive a power cut (synchronous=FULL), not only the death of the process.
        pool_size: Connections kept.
        echo: Log each statement.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        remote = sa.create_engine(
            parsed, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True, pool_recycle=1800, echo=echo
        )
        sa.event.listen(remote, "handle_error", _refuse_nul)
        return remote
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = sa.create_engine(
        parsed,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=pool_size,
        echo=echo,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False, "isolation_level": None},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA cache_size=-16000")
        cursor.execute("PRAGMA temp_store=MEMORY")
        cursor.execute("PRAGMA wal_autocheckpoint=16000")  # every 16 MB, not 4: each checkpoint waits for the disk
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # Taking the write lock at once, and not at the first write, is what makes waiting for it possible.
        read_only = connection.get_execution_options().get(_READ_ONLY)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _refuse_nul(context: sa.ExceptionContext) -> None:
    """PostgreSQL has no text with NUL in it; whoever asks for one (an id, a name) has made a mistake."""
    if "cannot contain NUL" in str(context.original_exception):
        raise InvalidArgument("text must not have NUL characters")


class TryAgain(Exception):
    """Raised within a transaction that has seen what is no longer so: it is undone and run again."""


def _is_transient(error: sa.exc.DBAPIError) -> bool:
    original = error.orig
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if state in _RETRY_SQLSTATES:
        return True
    if original is not None and original.args and original.args[0] in _RETRY_MYSQL:
        return True
    return "database is locked" in str(original) or "database table is locked" in str(original)


def run_transaction(engine: sa.Engine, function: Callable[[sa.Connection], T], *, attempts: int = 8) -> T:
    """Runs `function` in a transaction and commits; again, with backoff, when the database says busy or deadlock.

    Args:
        engine: Made by `create_engine`.
        function: Given the connection; it may run more than once (`TryAgain`), so it must have no other effects.
        attempts: How often to try.

    Raises:
        Unavailable: Still busy after all attempts, or the database cannot be reached.
        sqlalchemy.exc.DBAPIError: Any other error of the database (IntegrityError included), at once.
    """
    for attempt in range(attempts):
        try:
            with _turn(engine), engine.begin() as connection:
                return function(connection)
        except (sa.exc.DBAPIError, TryAgain) as error:
            if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
                raise Unavailable("the database cannot be reached; try again", retry_after_seconds=1) from error
            if isinstance(error, sa.exc.DBAPIError) and not _is_transient(error):
                raise
            if attempt == attempts - 1:
                raise Unavailable("the database is busy; try again", retry_after_seconds=1) from error
        time.sleep(random.uniform(0.2, 1.0) * 0.01 * 2**attempt)  # noqa: S311
    raise AssertionError("unreachable")


_turns: "weakref.WeakKeyDictionary[sa.Engine, threading.Lock]" = weakref.WeakKeyDictionary()


def _turn(engine: sa.Engine) -> AbstractContextManager[Any]:
    """Lets the writers of this process wait in line on SQLite, which has one at a time: its own way of waiting is to
    sleep and look again, for longer each time. Other databases have their writers at once."""
    if engine.dialect.name != "sqlite":
        return nullcontext()
    return _turns.setdefault(engine, threading.Lock())


@contextmanager
def read(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Gives a connection that only reads: on SQLite it never waits for a writer, and sees one consistent state."""
    with engine.connect().execution_options(**{_READ_ONLY: True}) as connection, connection.begin():
        yield connection


@contextmanager
def exclusively(connection: sa.Connection, name: str) -> Iterator[None]:
    """Keeps other replicas waiting, while tables are made. On SQLite the transaction itself does (BEGIN IMMEDIATE).

    Args:
        connection: Not in a transaction.
        name: Of the lock; replicas of one service use one.
    """
    dialect = connection.dialect.name
    number = zlib.crc32(name.encode())
    if dialect == "postgresql":
        with connection.begin():
            connection.execute(sa.select(sa.func.pg_advisory_lock(number)))
    elif dialect in {"mysql", "mariadb"}:
        with connection.begin():
            connection.execute(sa.select(sa.func.get_lock(name, 60)))
    try:
        yield
    finally:
        if dialect == "postgresql":
            with connection.begin():
                connection.execute(sa.select(sa.func.pg_advisory_unlock(number)))
        elif dialect in {"mysql", "mariadb"}:
            with connection.begin():
                connection.execute(sa.select(sa.func.release_lock(name)))


def migrate(engine: sa.Engine, package: str) -> None:
    """Brings the database to the newest revision in `<package>/migrations/versions` (Alembic).

    Replicas that start at once wait for one another. At the newest revision already, it costs one SELECT.

    Args:
        engine: Made by `create_engine`.
        package: Name of the service's package.
    """
    import importlib.util

    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "migrations"
    head = _newest_revision(folder / "versions")
    table = f"{package}_version"
    if head is not None and _current_revision(engine, table) == head:
        return
    from mlmesh_kit._migrations import upgrade

    upgrade(engine, folder, table)


def _newest_revision(versions: Path) -> str | None:
    """Gives the newest revision by file name (`0001_runs.py` → `0001`), without importing Alembic (0.2 s)."""
    names = sorted(path.name for path in versions.glob("[0-9]*_*.py"))
    return names[-1].split("_")[0] if names else None


def _current_revision(engine: sa.Engine, table: str) -> str | None:
    try:
        with engine.connect().execution_options(**{_READ_ONLY: True}) as connection:
            found = connection.scalar(sa.text(f"SELECT version_num FROM {table}"))  # noqa: S608
            return None if found is None else str(found)
    except sa.exc.DBAPIError:
        return None
