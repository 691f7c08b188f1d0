"""Artifacts, executions and contexts."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from mlmesh_kit.errors import AlreadyExists
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata import tables
from mlmesh_metadata.kinds import Kind, Node
from mlmesh_metadata.store.rows import chunks, tables_of
from mlmesh_metadata.store.types import TypeRows
from mlmesh_metadata.values import from_columns, to_columns


class NodeRows:
    """Nodes, in one transaction."""

    def __init__(self, connection: sa.Connection, types: TypeRows) -> None:
        self._connection = connection
        self._types = types

    def insert(self, kind: Kind, node: Node, now: int) -> int:
        """Stores a new node; gives its id.

        Args:
            kind: Of the node.
            node: Valid; its id and times are not looked at.
            now: Milliseconds since the epoch.

        Raises:
            AlreadyExists: Its name (within the type) or its external id is taken.
        """
        table = tables_of(kind).nodes
        columns = {
            **_columns(kind, node),
            "type_id": node.type_id,
            "create_time_since_epoch": now,
            "last_update_time_since_epoch": now,
        }
        if node.HasField("name"):
            columns["name"] = node.name
        try:
            result = self._connection.execute(sa.insert(table).values(columns))
        except sa.exc.IntegrityError as error:
            raise _taken(kind, node, error) from error
        assert result.inserted_primary_key is not None
        node_id = int(result.inserted_primary_key[0])
        self._insert_properties(kind, node_id, node)
        return node_id

    def update(self, kind: Kind, stored: Node, wanted: Node, now: int) -> None:
        """Makes a stored node as wanted; its type and creation time stay.

        Args:
            kind: Of the node.
            stored: As it is.
            wanted: As it shall be.
            now: Milliseconds since the epoch.

        Raises:
            AlreadyExists: The new name or external id is another's.
        """
        owned = tables_of(kind)
        columns = {**_columns(kind, wanted), "last_update_time_since_epoch": now}
        if kind.name_mutable and wanted.HasField("name"):
            columns["name"] = wanted.name
        try:
            self._connection.execute(sa.update(owned.nodes).where(owned.nodes.c.id == stored.id).values(columns))
        except sa.exc.IntegrityError as error:
            raise _taken(kind, wanted, error) from error
        if _properties(stored) != _properties(wanted):
            self._connection.execute(sa.delete(owned.properties).where(owned.key == stored.id))
            self._insert_properties(kind, stored.id, wanted)

    def touch(self, kind: Kind, node_id: int, now: int) -> None:
        """Sets the time of the last update."""
        table = tables_of(kind).nodes
        self._connection.execute(sa.update(table).where(table.c.id == node_id).values(last_update_time_since_epoch=now))

    def by_ids(self, kind: Kind, ids: Iterable[int]) -> list[Node]:
        """Gives those that exist, by id."""
        column = tables_of(kind).nodes.c.id
        wanted = sorted(set(ids))
        return [node for some in chunks(wanted) for node in self.load(kind, sa.select(column).where(column.in_(some)))]

    def in_order(self, kind: Kind, ids: Sequence[int]) -> list[Node]:
        """Gives those that exist, in the order of the ids."""
        found = {node.id: node for node in self.by_ids(kind, ids)}
        return [found[node_id] for node_id in ids if node_id in found]

    def existing(self, kind: Kind, ids: Iterable[int]) -> set[int]:
        """Gives the ids that exist."""
        column = tables_of(kind).nodes.c.id
        wanted = sorted(set(ids))
        return {
            found
            for some in chunks(wanted)
            for found in self._connection.scalars(sa.select(column).where(column.in_(some)))
        }

    def by_name(self, kind: Kind, type_id: int, name: str) -> Node | None:
        """Gives the node of a type and name."""
        table = tables_of(kind).nodes
        found = self.load(kind, sa.select(table.c.id).where(table.c.type_id == type_id, table.c.name == name))
        return found[0] if found else None

    def by_external_ids(self, kind: Kind, external_ids: Sequence[str]) -> list[Node]:
        """Gives those that exist, by id."""
        table = tables_of(kind).nodes
        return self._by_values(kind, table.c.external_id, external_ids)

    def by_uris(self, kind: Kind, uris: Sequence[str]) -> list[Node]:
        """Gives the artifacts that lie there, by id."""
        return self._by_values(kind, tables.artifacts.c.uri, uris)

    def members(self, kind: Kind, context_id: int) -> sa.Select[tuple[int]]:
        """Gives the query for the ids of a context's artifacts or executions."""
        member = tables_of(kind).members
        assert member is not None
        return sa.select(member.c[f"{kind.name}_id"]).where(member.c.context_id == context_id)

    def newest_artifact(self, *, uri: str = "", name: str = "", type_name: str = "") -> int | None:
        """Gives the id of the newest artifact with this uri, name and type; "" is any."""
        query = sa.select(tables.artifacts.c.id).order_by(tables.artifacts.c.id.desc()).limit(1)
        if uri:
            query = query.where(tables.artifacts.c.uri == uri)
        if name:
            query = query.where(tables.artifacts.c.name == name)
        if type_name:
            typed = sa.select(tables.types.c.id).where(tables.types.c.name == type_name)
            query = query.where(tables.artifacts.c.type_id.in_(typed))
        return self._connection.scalar(query)

    def load(self, kind: Kind, ids: sa.Select[tuple[int]]) -> list[Node]:
        """Reads the nodes whose ids a query gives, with types and properties, by id."""
        owned = tables_of(kind)
        rows = self._connection.execute(
            sa.select(owned.nodes).where(owned.nodes.c.id.in_(ids)).order_by(owned.nodes.c.id)
        ).all()
        named = self._types.by_ids(kind, {row.type_id for row in rows})
        found: dict[int, Node] = {}
        for row in rows:
            found[row.id] = _node(kind, row, named[row.type_id].name if row.type_id in named else "")
        for some in chunks(list(found)):
            properties = sa.select(owned.properties).where(owned.key.in_(some))
            for row in self._connection.execute(properties):
                node = found[row[0]]
                into = node.custom_properties if row.is_custom_property else node.properties
                into[row.name].CopyFrom(from_columns(row))
        return list(found.values())

    def _by_values(self, kind: Kind, column: sa.Column[Any], values: Sequence[str]) -> list[Node]:
        table = tables_of(kind).nodes
        found = [n for some in chunks(values) for n in self.load(kind, sa.select(table.c.id).where(column.in_(some)))]
        return sorted(found, key=lambda node: node.id)

    def _insert_properties(self, kind: Kind, node_id: int, node: Node) -> None:
        owned = tables_of(kind)
        rows = [
            {owned.key.name: node_id, "name": name, "is_custom_property": custom, **to_columns(value)}
            for custom, properties in ((0, node.properties), (1, node.custom_properties))
            for name, value in properties.items()
        ]
        if rows:
            self._connection.execute(sa.insert(owned.properties), rows)


def _columns(kind: Kind, node: Node) -> dict[str, Any]:
    columns: dict[str, Any] = {"external_id": node.external_id or None}
    if isinstance(node, mlpb.Artifact):
        columns["uri"] = node.uri
    if kind.state_field:
        columns[kind.state_field] = getattr(node, kind.state_field) if node.HasField(kind.state_field) else None  # type: ignore[arg-type]
    return columns


def _node(kind: Kind, row: Any, type_name: str) -> Node:
    node = kind.message(
        id=row.id,
        type_id=row.type_id,
        create_time_since_epoch=row.create_time_since_epoch,
        last_update_time_since_epoch=row.last_update_time_since_epoch,
    )
    if type_name:
        node.type = type_name
    if row.name is not None:
        node.name = row.name
    if row.external_id is not None:
        node.external_id = row.external_id
    if isinstance(node, mlpb.Artifact):
        node.uri = row.uri or ""
    if kind.state_field and row._mapping[kind.state_field] is not None:
        setattr(node, kind.state_field, row._mapping[kind.state_field])
    return node


def _properties(node: Node) -> tuple[dict[str, bytes], dict[str, bytes]]:
    default, custom = (
        {name: value.SerializeToString(deterministic=True) for name, value in properties.items()}
        for properties in (node.properties, node.custom_properties)
    )
    return default, custom


def _taken(kind: Kind, node: Node, error: sa.exc.IntegrityError) -> AlreadyExists:
    by_external_id = node.external_id and re.search("external", str(error.orig), re.IGNORECASE)
    what = f"external_id {node.external_id!r}" if by_external_id else f"name {node.name!r} and type_id {node.type_id}"
    return AlreadyExists(
        kind.name, node.name or node.external_id, message=f"Given node already exists: {kind.name} with {what}"
    )
