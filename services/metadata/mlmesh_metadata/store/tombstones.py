"""Tombstones, and how a node becomes one."""

import datetime
import uuid
from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata import tables
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, KINDS, Kind, Node
from mlmesh_metadata.own_tables import tombstones
from mlmesh_metadata.reserved import BAD_DATA, DELETED
from mlmesh_metadata.store.prepared import PreparedIgnore
from mlmesh_metadata.store.rows import chunks, tables_of

IMPORTED_PREFIX = "import:"
"""What external ids begin with that an import has made up. By such a one it knows a node again, even a deleted one."""
_NAME_PREFIX = f"{DELETED}:"
"""Contexts must have a name: that of a deleted one begins so, and goes on with what nobody else has."""
_COLUMNS = ("kind", "node_id", "node_name", "deleter", "delete_time", "reason")
_INSERT = PreparedIgnore(tombstones, *_COLUMNS)


class TombstoneRow(NamedTuple):
    """What is known of a node that was deleted.

    Args:
        kind: Number of its kind.
        node_id: Its id.
        node_name: What it was called.
        deleter: Who deleted it.
        delete_time: When; milliseconds since the epoch.
        reason: Why.
    """

    kind: int
    node_id: int
    node_name: str
    deleter: str
    delete_time: int
    reason: str


class TombstoneRows:
    """Tombstones, in one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def bury(self, kind: Kind, nodes: Sequence[Node], rows: Sequence[TombstoneRow], now: int) -> None:
        """Makes nodes tombstones: id, type, links and marks stay. What another has deleted meanwhile stays as it is.

        Args:
            kind: Of the nodes.
            nodes: As they are stored.
            rows: What shall be known of each.
            now: Milliseconds since the epoch.
        """
        if not nodes:
            return
        owned = tables_of(kind)
        c, key, properties = owned.nodes.c, owned.key, owned.properties.c
        changed = c.last_update_time_since_epoch
        values: dict[str, object] = {
            "external_id": sa.case((c.external_id.like(f"{IMPORTED_PREFIX}%"), c.external_id)),
            "last_update_time_since_epoch": sa.case((changed >= now, changed + 1), else_=now),
        }
        if kind is not CONTEXT:
            values["name"] = None
        if kind is ARTIFACT:
            values |= {"uri": "", "state": mlpb.Artifact.DELETED}
        ids = [node.id for node in nodes]
        for some in chunks(ids):
            # The row first: who changes a node at this moment has its lock, and its properties are then seen, too.
            self._connection.execute(sa.update(owned.nodes).where(c.id.in_(some)).values(values))
            kept = sa.and_(properties.is_custom_property, properties.name == BAD_DATA)
            self._connection.execute(sa.delete(owned.properties).where(key.in_(some), sa.not_(kept)))
        if kind is CONTEXT:
            rename = sa.update(owned.nodes).where(c.id == sa.bindparam("node_id")).values(name=sa.bindparam("free"))
            renamed = [node.id for node in nodes if not node.name.startswith(_NAME_PREFIX)]
            if renamed:
                made = [{"node_id": node_id, "free": f"{_NAME_PREFIX}{uuid.uuid4()}"} for node_id in renamed]
                self._connection.execute(rename, made)
        said = {"name": DELETED, "is_custom_property": True}
        when = [{key.name: row.node_id, **said, "string_value": _iso(row.delete_time)} for row in rows]
        self._connection.execute(sa.insert(owned.properties), when)
        _INSERT.run_each(self._connection, [row._asdict() for row in rows])

    def of(self, kind: Kind, ids: Collection[int]) -> dict[int, TombstoneRow]:
        """Gives the tombstones among some nodes, by id."""
        query = sa.select(*(tombstones.c[name] for name in _COLUMNS)).where(tombstones.c.kind == kind.number)
        return {
            row[1]: TombstoneRow(*row)
            for some in chunks(sorted(ids))
            for row in self._connection.execute(query.where(tombstones.c.node_id.in_(some)))
        }

    def page(self, limit: int, before: int | None) -> list[tuple[int, TombstoneRow]]:
        """Gives tombstones with their numbers, the newest first.

        Args:
            limit: How many at most.
            before: Only those with smaller numbers; None: all.
        """
        query = sa.select(tombstones.c.id, *(tombstones.c[name] for name in _COLUMNS))
        query = query.order_by(tombstones.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(tombstones.c.id < before)
        return [(row[0], TombstoneRow(*row[1:])) for row in self._connection.execute(query)]

    def type_names(self, rows: Collection[TombstoneRow]) -> dict[tuple[int, int], str]:
        """Gives the names of the types of what was deleted, by kind's number and id."""
        found: dict[tuple[int, int], str] = {}
        for kind in KINDS:
            nodes = tables_of(kind).nodes
            query = sa.select(nodes.c.id, tables.types.c.name).join(tables.types, tables.types.c.id == nodes.c.type_id)
            for some in chunks(sorted({row.node_id for row in rows if row.kind == kind.number})):
                for node_id, name in self._connection.execute(query.where(nodes.c.id.in_(some))):
                    found[kind.number, node_id] = name
        return found


def not_deleted(kind: Kind, node_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Gives the condition that a node is no tombstone."""
    known = sa.select(sa.literal(1)).where(tombstones.c.kind == kind.number, tombstones.c.node_id == node_id)
    return ~known.exists()


def _iso(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
