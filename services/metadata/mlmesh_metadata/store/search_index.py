"""The full-text index, in one transaction: what is to be indexed, what is, and what matches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from mlmesh_metadata.kinds import Kind
from mlmesh_metadata.own_tables import search_documents as documents
from mlmesh_metadata.own_tables import search_passes as passes
from mlmesh_metadata.store.rows import chunks, tables_of
from mlmesh_metadata.store.search_engines import ENGINES, Term
from mlmesh_metadata.tables import types


class Progress(NamedTuple):
    """How far the index of a kind is; times in milliseconds since the epoch.

    Args:
        checked: When the last complete pass began.
        started: When the open pass began; 0: none is open.
        at_time: Of the last node that the open pass has seen: its last_update_time_since_epoch.
        at_id: Its id.
    """

    checked: int = 0
    started: int = 0
    at_time: int = 0
    at_id: int = 0


class Document(NamedTuple):
    """What is to be known of a node."""

    node_id: int
    type_id: int
    updated: int
    words: list[str]


class Hit(NamedTuple):
    """A node that matches."""

    kind: int
    node_id: int


class SearchIndex:
    """The index, in one transaction.

    Args:
        connection: Of the transaction.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._engine = ENGINES[connection.dialect.name]

    def progress(self, kind: Kind, *, lock: bool = False) -> Progress:
        """Says how far the index is.

        Args:
            kind: Of the nodes.
            lock: Keep others from changing it until the transaction ends.
        """
        query = sa.select(passes.c.checked, passes.c.started, passes.c.at_time, passes.c.at_id)
        query = query.where(passes.c.kind == kind.number)
        return Progress(*self._connection.execute(query.with_for_update() if lock else query).one())

    def set_progress(self, kind: Kind, progress: Progress) -> None:
        """Says how far the index is now."""
        self._connection.execute(sa.update(passes).where(passes.c.kind == kind.number).values(progress._asdict()))

    def outdated(self, kind: Kind, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        """Gives (last_update_time_since_epoch, id) of nodes that are not in the index as they are, in that order.

        Args:
            kind: Of the nodes.
            after: Where to begin.
            limit: How many at most.
        """
        nodes = tables_of(kind).nodes
        time, node_id = nodes.c.last_update_time_since_epoch, nodes.c.id
        known = sa.and_(documents.c.kind == kind.number, documents.c.node_id == node_id)
        query = (
            sa.select(time, node_id)
            .outerjoin_from(nodes, documents, known)
            # The first condition says nothing new, but MariaDB finds by it where to begin.
            .where(time >= after[0], sa.tuple_(time, node_id) > sa.tuple_(sa.literal(after[0]), sa.literal(after[1])))
            .where(sa.or_(documents.c.node_id.is_(None), documents.c.updated != time))
            .order_by(time, node_id)
            .limit(limit)
        )
        return [(row[0], row[1]) for row in self._connection.execute(query)]

    def put(self, kind: Kind, found: Sequence[Document]) -> None:
        """Makes the index have nodes as they are."""
        self.delete(kind, [document.node_id for document in found])
        if found:
            rows = [{"kind": kind.number, **document._asdict()} for document in found]
            self._engine.insert(self._connection, rows)

    def delete(self, kind: Kind, ids: Sequence[int]) -> None:
        """Takes nodes out of the index."""
        for some in chunks(ids):
            self._engine.delete(self._connection, kind.number, some)

    def search(self, terms: Sequence[Term], *, kind: Kind | None, type_name: str, offset: int, limit: int) -> list[Hit]:
        """Gives the nodes that have all terms: the best first, of equally good ones those changed last.

        Args:
            terms: What must be there; one at least.
            kind: Only such nodes.
            type_name: Only nodes of types of this name.
            offset: How many of the best to pass over.
            limit: How many at most.
        """
        source, condition, score = self._engine.query(terms)
        query: sa.Select[Any] = sa.select(documents.c.kind, documents.c.node_id).select_from(source).where(condition)
        if kind is not None:
            query = query.where(documents.c.kind == kind.number)
        if type_name:
            named = sa.select(types.c.id).where(types.c.name == type_name)
            query = query.where(documents.c.type_id.in_(named))
        query = query.order_by(score.desc(), documents.c.updated.desc(), documents.c.kind, documents.c.node_id.desc())
        return [Hit(row[0], row[1]) for row in self._connection.execute(query.offset(offset).limit(limit))]
