"""What export and import ask of the database, in one transaction."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata import tables
from mlmesh_metadata.kinds import Kind
from mlmesh_metadata.own_tables import store
from mlmesh_metadata.store.rows import tables_of

PAGE = 1000


class ExchangeRows:
    """Everything, in pages by id; and whether something is there.

    Args:
        connection: Of the transaction.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def freeze(self) -> None:
        """Makes all that this transaction reads from now on one state; to be called first."""
        if self._connection.dialect.name == "postgresql":  # the others do so anyway
            self._connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))

    def store_id(self) -> str:
        """Tells this store from others."""
        return str(self._connection.scalar(sa.select(store.c.id)))

    def node_ids(self, kind: Kind) -> Iterator[list[int]]:
        """Gives the ids of all nodes."""
        table = tables_of(kind).nodes
        return ([row[0] for row in page] for page in self._pages(sa.select(table.c.id), table.c.id))

    def event_ids(self) -> Iterator[list[int]]:
        """Gives the ids of all events."""
        table = tables.events
        return ([row[0] for row in page] for page in self._pages(sa.select(table.c.id), table.c.id))

    def memberships(self, kind: Kind) -> Iterator[list[tuple[int, int]]]:
        """Gives (context id, node id) of all artifacts or executions in contexts."""
        owned = tables_of(kind)
        assert owned.members is not None
        table = owned.members
        query = sa.select(table.c.id, table.c.context_id, owned.member_column)
        return ([(row[1], row[2]) for row in page] for page in self._pages(query, table.c.id))

    def _pages(self, query: sa.Select[Any], key: sa.ColumnElement[int]) -> Iterator[list[Any]]:
        """Gives a query's rows, of which `key` is the first column and unique."""
        after = -1
        while True:
            page = list(self._connection.execute(query.where(key > after).order_by(key).limit(PAGE)))
            if not page:
                return
            yield page
            after = page[-1][0]

    def has_event(self, event: mlpb.Event) -> bool:
        """Whether there is an event of this artifact, execution and type."""
        c = tables.events.c
        wanted = (c.artifact_id == event.artifact_id, c.execution_id == event.execution_id, c.type == event.type)
        return self._connection.scalar(sa.select(c.id).where(*wanted)) is not None

    def is_member(self, kind: Kind, context_id: int, node_id: int) -> bool:
        """Whether an artifact or an execution is in a context."""
        owned = tables_of(kind)
        assert owned.members is not None
        query = sa.select(owned.members.c.id).where(
            owned.members.c.context_id == context_id, owned.member_column == node_id
        )
        return self._connection.scalar(query) is not None

    def set_create_time(self, kind: Kind, node_id: int, create_time: int) -> None:
        """Says when a node was made, elsewhere. The time of its last update stays: by it readers see what is new."""
        table = tables_of(kind).nodes
        change = sa.update(table).where(table.c.id == node_id).values(create_time_since_epoch=create_time)
        self._connection.execute(change)
