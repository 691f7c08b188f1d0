"""The database as transactions on nodes, types and links."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa
from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import InvalidArgument, ServiceError

from mlmesh_metadata.store.links import LinkRows
from mlmesh_metadata.store.listing import Listing
from mlmesh_metadata.store.marks import MarkRows
from mlmesh_metadata.store.node_cache import NodeCache
from mlmesh_metadata.store.nodes import NodeRows
from mlmesh_metadata.store.retention import RetentionRows
from mlmesh_metadata.store.schema import prepare
from mlmesh_metadata.store.tombstones import TombstoneRows
from mlmesh_metadata.store.types import TypeCache, TypeRows

T = TypeVar("T")

_NO_NUMBER = "can not be used with MySQL"
"""What MySQL's driver says of infinity."""


class Session:
    """What can be read and written in one transaction."""

    def __init__(self, connection: sa.Connection, types: TypeCache, nodes: NodeCache) -> None:
        self.connection = connection
        self.types = TypeRows(connection, types)
        self.nodes = NodeRows(connection, self.types, nodes)
        self.links = LinkRows(connection)
        self.listing = Listing(connection)
        self.marks = MarkRows(connection)
        self.tombstones = TombstoneRows(connection)
        self.retention = RetentionRows(connection)


class Store:
    """A database of ML Metadata.

    Args:
        engine: Made by `mlmesh_kit.database.create_engine`. An empty database is filled with MLMD's tables.
        node_cache_bytes: What may be used to keep nodes that were read.
    """

    def __init__(self, engine: sa.Engine, *, node_cache_bytes: int = 32 << 20) -> None:
        self._engine = engine
        self._cache: TypeCache = {}
        self._nodes = NodeCache(node_cache_bytes)
        prepare(engine)

    @property
    def reads_at_once(self) -> bool:
        """Whether a read waits neither for a network nor for a writer: SQLite with its write-ahead log."""
        return self._engine.dialect.name == "sqlite"

    def write(self, change: Callable[[Session], T]) -> T:
        """Runs a change in one transaction; again when the database is busy, so it must have no other effects.

        Raises:
            InvalidArgument: The change holds a value that this database cannot store.
        """

        changed: set[int] = set()
        one_by_one = batched = False

        def run(connection: sa.Connection) -> T:
            nonlocal batched
            session = Session(connection, self._cache, self._nodes)
            session.nodes.one_by_one = one_by_one
            try:
                result = change(session)
                session.nodes.flush()
            finally:
                batched = session.nodes.batched
            changed.update(session.types.changed)
            return result

        try:
            try:
                result = run_transaction(self._engine, run)
            except (ServiceError, sa.exc.IntegrityError):
                if not batched:
                    raise
                # A batch does not say which of its nodes is at fault, nor which fault comes first in the request.
                one_by_one = True
                result = run_transaction(self._engine, run)
        except (sa.exc.DataError, sa.exc.ProgrammingError) as error:
            if isinstance(error, sa.exc.ProgrammingError) and _NO_NUMBER not in str(error.orig):
                raise
            # NUL in text is nothing for PostgreSQL, and infinity nothing for MariaDB.
            message = f"holds a value that {self._engine.dialect.name} cannot store; nothing was stored"
            raise InvalidArgument(message, field="request") from error
        if changed:
            for key in [key for key in self._cache if key[1] in changed]:
                self._cache.pop(key, None)
        return result

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Gives a session that reads one consistent state."""
        with read(self._engine) as connection:
            yield Session(connection, self._cache, self._nodes)
