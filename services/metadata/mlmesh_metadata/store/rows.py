"""Which tables a kind of node lives in, and the statements on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import sqlalchemy as sa

from mlmesh_metadata import tables
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, Kind
from mlmesh_metadata.store.prepared import Prepared, PreparedIgnore, PreparedIn, insert_of
from mlmesh_metadata.values import COLUMNS

T = TypeVar("T")

CHUNK = 512
"""Values in one IN (...): far below every database's limit on parameters."""


@dataclass(frozen=True)
class KindTables:
    """Tables of a kind.

    Args:
        nodes: One row a node.
        properties: One row a property.
        key: Column of `properties` with the node's id.
        members: Where its memberships in contexts are; None for contexts.
    """

    nodes: sa.Table
    properties: sa.Table
    key: sa.Column[int]
    members: sa.Table | None

    @cached_property
    def own_columns(self) -> list[str]:
        """Columns of a node that a client sets, but for its type."""
        fixed = {"id", "type_id", "create_time_since_epoch", "last_update_time_since_epoch"}
        return [column.name for column in self.nodes.c if column.name not in fixed]

    @cached_property
    def insert(self) -> Prepared:
        """Stores a node."""
        return insert_of(self.nodes, *(column.name for column in self.nodes.c if column.name != "id"))

    @cached_property
    def update(self) -> Prepared:
        """Changes all that a client sets, if the node is still as it was `read_at`."""
        values: dict[str, Any] = {
            name: sa.bindparam(name) for name in [*self.own_columns, "last_update_time_since_epoch"]
        }
        c = self.nodes.c
        same = sa.and_(c.id == sa.bindparam("node_id"), c.last_update_time_since_epoch == sa.bindparam("read_at"))
        return Prepared(sa.update(self.nodes).where(same).values(values))

    @cached_property
    def insert_property(self) -> Prepared:
        """Stores a property."""
        return insert_of(self.properties, *self.property_columns)

    @cached_property
    def property_columns(self) -> tuple[str, ...]:
        """What `insert_property` stores."""
        return (self.key.name, "name", "is_custom_property", *COLUMNS)

    @cached_property
    def by_ids(self) -> PreparedIn:
        """Reads nodes: id, type_id, times, then `own_columns`."""
        c = self.nodes.c
        columns = [c.id, c.type_id, c.create_time_since_epoch, c.last_update_time_since_epoch]
        columns += [c[name] for name in self.own_columns]
        return PreparedIn(lambda values: sa.select(*columns).where(c.id.in_(values)).order_by(c.id))

    @cached_property
    def stamps(self) -> PreparedIn:
        """Reads id, time of the last update and type's id."""
        c = self.nodes.c
        columns = (c.id, c.last_update_time_since_epoch, c.type_id)
        return PreparedIn(lambda values: sa.select(*columns).where(c.id.in_(values)).order_by(c.id))

    @cached_property
    def existing(self) -> PreparedIn:
        """Reads which ids exist."""
        return PreparedIn(lambda values: sa.select(self.nodes.c.id).where(self.nodes.c.id.in_(values)))

    @cached_property
    def by_name(self) -> Prepared:
        """Reads the id of a type's node of a name."""
        c = self.nodes.c
        wanted = sa.and_(c.type_id == sa.bindparam("type_id"), c.name == sa.bindparam("name"))
        return Prepared(sa.select(c.id).where(wanted))

    @cached_property
    def by_external_id(self) -> PreparedIn:
        """Reads the ids of nodes with some external ids."""
        return PreparedIn(lambda values: sa.select(self.nodes.c.id).where(self.nodes.c.external_id.in_(values)))

    @cached_property
    def properties_of(self) -> PreparedIn:
        """Reads properties: node's id, name, whether custom, then the values' columns."""
        c = self.properties.c
        columns = [self.key, c.name, c.is_custom_property, *(c[name] for name in COLUMNS)]
        return PreparedIn(lambda values: sa.select(*columns).where(self.key.in_(values)))

    @cached_property
    def member_column(self) -> Any:
        """The column of `members` with the node's id."""
        assert self.members is not None
        return next(column for column in self.members.c if column.name not in {"id", "context_id"})

    @cached_property
    def join(self) -> PreparedIgnore:
        """Puts a node into a context."""
        assert self.members is not None
        return PreparedIgnore(self.members, "context_id", self.member_column.name)

    @cached_property
    def memberships(self) -> PreparedIn:
        """Reads node's id and context's id, in the order in which they were put."""
        assert self.members is not None
        c = self.members.c
        return PreparedIn(
            lambda values: (
                sa.select(self.member_column, c.context_id).where(self.member_column.in_(values)).order_by(c.id)
            )
        )


_TABLES = {
    ARTIFACT.name: KindTables(
        tables.artifacts, tables.artifact_properties, tables.artifact_properties.c.artifact_id, tables.attributions
    ),
    EXECUTION.name: KindTables(
        tables.executions, tables.execution_properties, tables.execution_properties.c.execution_id, tables.associations
    ),
    CONTEXT.name: KindTables(tables.contexts, tables.context_properties, tables.context_properties.c.context_id, None),
}


def tables_of(kind: Kind) -> KindTables:
    """Gives the tables of a kind."""
    return _TABLES[kind.name]


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cuts a list into pieces for IN (...)."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]
