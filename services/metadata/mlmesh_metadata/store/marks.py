"""Marks, and which nodes they are on."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import sqlalchemy as sa

from mlmesh_metadata.kinds import Kind
from mlmesh_metadata.own_tables import marked, marks
from mlmesh_metadata.store.prepared import Prepared
from mlmesh_metadata.store.rows import chunks

_STANDING = Prepared(sa.select(sa.func.min(marks.c.id)).where(marks.c.undo_time.is_(None)))


class MarkRow(NamedTuple):
    """A mark. Times are in milliseconds since the epoch."""

    id: int
    artifact_id: int
    reason: str
    creator: str
    create_time: int
    undo_time: int | None


class Note(NamedTuple):
    """A standing mark on a node."""

    node_id: int
    mark_id: int
    reason: str
    origin: bool


class MarkRows:
    """Marks, in one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    @cached_property
    def any_standing(self) -> bool:
        """Whether there is a mark that stands; looked up once in a transaction."""
        return _STANDING.rows(self._connection, {})[0][0] is not None

    def insert(self, artifact_id: int, reason: str, creator: str, now: int) -> int:
        """Stores a mark; gives its id."""
        values = {"artifact_id": artifact_id, "reason": reason, "creator": creator, "create_time": now}
        result = self._connection.execute(sa.insert(marks).values(values))
        assert result.inserted_primary_key is not None
        self.__dict__["any_standing"] = True
        return int(result.inserted_primary_key[0])

    def undo(self, mark_id: int, now: int) -> None:
        """Takes a mark back."""
        self._connection.execute(sa.update(marks).where(marks.c.id == mark_id).values(undo_time=now))
        self.__dict__.pop("any_standing", None)

    def get(self, mark_id: int) -> MarkRow | None:
        """Gives a mark."""
        row = self._connection.execute(sa.select(marks).where(marks.c.id == mark_id)).first()
        return MarkRow(*row) if row else None

    def page(self, limit: int, before: int | None, *, with_undone: bool) -> list[MarkRow]:
        """Gives marks, the newest first.

        Args:
            limit: How many at most.
            before: Only marks with smaller ids; None: all.
            with_undone: Also those that were taken back.
        """
        query = sa.select(marks).order_by(marks.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(marks.c.id < before)
        if not with_undone:
            query = query.where(marks.c.undo_time.is_(None))
        return [MarkRow(*row) for row in self._connection.execute(query)]

    def put_on(self, mark_id: int, kind: Kind, ids: Iterable[int], origin: bool = False) -> None:
        """Puts a mark on nodes that do not have it."""
        rows = [{"mark_id": mark_id, "kind": kind.number, "node_id": node_id, "origin": origin} for node_id in ids]
        if rows:
            self._connection.execute(sa.insert(marked), rows)

    def nodes_of(self, mark_id: int, kind: Kind) -> list[int]:
        """Gives the ids of the nodes of a kind that a mark is on."""
        query = sa.select(marked.c.node_id).where(marked.c.mark_id == mark_id, marked.c.kind == kind.number)
        return list(self._connection.scalars(query.order_by(marked.c.node_id)))

    def count(self, mark_id: int, kind: Kind) -> int:
        """Says on how many nodes of a kind a mark is."""
        query = sa.select(sa.func.count()).where(marked.c.mark_id == mark_id, marked.c.kind == kind.number)
        return int(self._connection.scalar(query) or 0)

    def notes(self, kind: Kind, ids: Sequence[int]) -> list[Note]:
        """Gives the standing marks on nodes, by node and mark."""
        if not self.any_standing:
            return []
        query = (
            sa.select(marked.c.node_id, marked.c.mark_id, marks.c.reason, marked.c.origin)
            .join(marks, marks.c.id == marked.c.mark_id)
            .where(marked.c.kind == kind.number, marks.c.undo_time.is_(None))
        )
        return sorted(
            Note(*row)
            for some in chunks(sorted(set(ids)))
            for row in self._connection.execute(query.where(marked.c.node_id.in_(some)))
        )
