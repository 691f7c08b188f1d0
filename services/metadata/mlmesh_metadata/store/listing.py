"""Pages of nodes (ListOperationOptions)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from mlmesh_kit.errors import InvalidArgument

from mlmesh_metadata.filtering import Expression
from mlmesh_metadata.kinds import Kind
from mlmesh_metadata.store.filters import condition
from mlmesh_metadata.store.nodes import Stamp
from mlmesh_metadata.store.rows import chunks, tables_of
from mlmesh_metadata.store.tombstones import not_deleted


@dataclass(frozen=True)
class Order:
    """What a list is sorted by: a column of the node's table, then its id.

    Args:
        column: create_time_since_epoch, last_update_time_since_epoch or id.
        ascending: The smallest first.
    """

    column: str
    ascending: bool


class Listing:
    """Pages, in one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def page(
        self,
        kind: Kind,
        order: Order,
        limit: int | None,
        after: tuple[int, int] | None = None,
        *,
        type_id: int | None = None,
        context_id: int | None = None,
        wanted: Expression | None = None,
        with_deleted: bool = True,
    ) -> list[tuple[int, Stamp]]:
        """Gives the value of the order's column, and which node, in order.

        Args:
            kind: Of the nodes.
            order: How to sort.
            limit: How many at most.
            after: The last (value, id) of the page before: what comes after it is stable when nodes are added.
            type_id: Only nodes of this type.
            context_id: Only members of this context; for contexts not allowed.
            wanted: Only what this filter_query matches.
            with_deleted: Also tombstones.

        Raises:
            InvalidArgument: The database cannot calculate what the filter says.
        """
        table = tables_of(kind).nodes
        sorted_by, node_id = table.c[order.column], table.c.id
        query = sa.select(sorted_by, node_id, table.c.last_update_time_since_epoch, table.c.type_id)
        if type_id is not None:
            query = query.where(table.c.type_id == type_id)
        if context_id is not None:
            member = tables_of(kind).members
            assert member is not None
            query = query.join(member, member.c[f"{kind.name}_id"] == node_id).where(member.c.context_id == context_id)
        if wanted is not None:
            query = query.where(condition(self._connection, kind, wanted))
        if not with_deleted:
            query = query.where(not_deleted(kind, node_id))
        if after is not None:
            position = sa.tuple_(sorted_by, node_id)
            bound = sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
            query = query.where(position > bound if order.ascending else position < bound)
        direction = sa.asc if order.ascending else sa.desc
        query = query.order_by(direction(sorted_by), direction(node_id)).limit(limit)
        return [(row[0], Stamp(row[1], row[2], row[3])) for row in self._run(query)]

    def matching(self, kind: Kind, ids: Collection[int], wanted: Expression, field: str) -> set[int]:
        """Gives those of some nodes that a filter_query matches.

        Raises:
            InvalidArgument: The database cannot calculate what the filter says.
        """
        table = tables_of(kind).nodes
        found: set[int] = set()
        for some in chunks(sorted(ids)):
            query = sa.select(table.c.id).where(table.c.id.in_(some))
            found |= {row[0] for row in self._run(query.where(condition(self._connection, kind, wanted)), field)}
        return found

    def _run(self, query: sa.Select[Any], field: str = "options.filter_query") -> Sequence[Any]:
        try:
            return self._connection.execute(query).all()
        except sa.exc.DataError as error:  # a division by zero, a sum past 64 bits: not every database minds
            raise InvalidArgument("cannot be calculated", field=field) from error
