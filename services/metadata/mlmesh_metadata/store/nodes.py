"""Artifacts, executions and contexts."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from mlmesh_kit.database import TryAgain
from mlmesh_kit.errors import AlreadyExists
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata import tables
from mlmesh_metadata.kinds import ARTIFACT, INPUTS, KINDS, Kind, Node
from mlmesh_metadata.store.batch import Batch, reserve_ids
from mlmesh_metadata.store.node_cache import NodeCache
from mlmesh_metadata.store.prepared import PreparedIn
from mlmesh_metadata.store.rows import chunks, tables_of
from mlmesh_metadata.store.types import TypeRows
from mlmesh_metadata.values import Row, fill, property_rows
from mlmesh_metadata.wire import sized


class Stamp(NamedTuple):
    """Says which node, as it was when.

    Args:
        id: Of the node.
        updated: Its last_update_time_since_epoch.
        type_id: Of its type.
    """

    id: int
    updated: int
    type_id: int


_BY_NAME = {kind.name: tables_of(kind) for kind in KINDS}
_BY_URI = PreparedIn(lambda values: sa.select(tables.artifacts.c.id).where(tables.artifacts.c.uri.in_(values)))


class NodeRows:
    """Nodes, in one transaction."""

    def __init__(self, connection: sa.Connection, types: TypeRows, cache: NodeCache) -> None:
        self._connection = connection
        self._types = types
        self._cache = cache
        self._unwritten: dict[str, list[tuple[Any, ...]]] = {}
        self._here: dict[str, set[int]] = {kind.name: set() for kind in KINDS}
        self._batch: Batch | None = None
        self.one_by_one = False
        self.batched = False

    @contextmanager
    def together(self, kind: Kind, count: int) -> Iterator[None]:
        """Stores the new nodes that are inserted within as one batch, where the database can give ids beforehand.

        An error that comes of it names no node: the transaction is to be run again with `one_by_one` set.

        Args:
            kind: Of the nodes.
            count: How many new ones there will be, at most.
        """
        if count > 1 and not self.one_by_one and (ids := reserve_ids(self._connection, kind, count)) is not None:
            self._batch = Batch(kind, iter(ids))
            self.batched = True
        yield
        self.flush()
        self._batch = None

    def flush(self) -> None:
        """Writes nodes and properties that wait to be written together."""
        if self._batch is not None:
            self._batch.write(self._connection)
        for name, rows in self._unwritten.items():
            if rows:
                owned = _BY_NAME[name]
                owned.insert_property.run_tuples(self._connection, owned.property_columns, rows)
        self._unwritten.clear()

    def insert(self, kind: Kind, node: Node, now: int, properties: Sequence[Row]) -> int:
        """Stores a new node; gives its id.

        Args:
            kind: Of the node.
            node: Valid; its id and times are not looked at.
            now: Milliseconds since the epoch.
            properties: The node's.

        Raises:
            AlreadyExists: Its name (within the type) or its external id is taken.
        """
        columns = _columns(kind, node)
        columns["name"] = node.name if node.HasField("name") else None
        columns["type_id"] = node.type_id
        columns["create_time_since_epoch"] = columns["last_update_time_since_epoch"] = now
        if self._batch is not None:
            node_id = self._batch.add(columns)
        else:
            try:
                node_id = tables_of(kind).insert.insert(self._connection, columns)
            except sa.exc.IntegrityError as error:
                raise _taken(kind, node, error) from error
        self._here[kind.name].add(node_id)
        self._insert_properties(kind, node_id, properties)
        return node_id

    def update(self, kind: Kind, stored: Node, wanted: Node, now: int, properties: Sequence[Row] | None = None) -> None:
        """Makes a stored node as wanted; its type and creation time stay.

        Args:
            kind: Of the node.
            stored: As it is.
            wanted: As it shall be.
            now: Milliseconds since the epoch.
            properties: Those of `wanted`, if they are at hand.

        Raises:
            AlreadyExists: The new name or external id is another's.
            TryAgain: Another transaction has changed it since it was read.
        """
        owned = tables_of(kind)
        named = wanted if kind.name_mutable and wanted.HasField("name") else stored
        columns = {
            **_columns(kind, wanted),
            "name": named.name if named.HasField("name") else None,
            "last_update_time_since_epoch": now,
            "node_id": stored.id,
            "read_at": stored.last_update_time_since_epoch,
        }
        try:
            found = owned.update.run(self._connection, columns)
        except sa.exc.IntegrityError as error:
            raise _taken(kind, wanted, error) from error
        if not found:
            raise TryAgain(f"{kind.name} {stored.id} was changed by another transaction")
        if _properties(stored) != _properties(wanted):
            self.flush()
            self._connection.execute(sa.delete(owned.properties).where(owned.key == stored.id))
            self._insert_properties(kind, stored.id, property_rows(wanted) if properties is None else properties)

    def touch(self, kind: Kind, node_id: int, now: int) -> None:
        """Sets the time of the last update."""
        table = tables_of(kind).nodes
        self._connection.execute(sa.update(table).where(table.c.id == node_id).values(last_update_time_since_epoch=now))

    def by_ids(self, kind: Kind, ids: Iterable[int]) -> list[Node]:
        """Gives those that exist, with types and properties, by id."""
        self.flush()
        owned = tables_of(kind)
        rows = list(owned.by_ids.rows(self._connection, sorted(set(ids))))
        names = {i: found.name for i, found in self._types.known(kind, {row[1] for row in rows}).items()}
        fields = ["id", "type_id", "create_time_since_epoch", "last_update_time_since_epoch", *owned.own_columns]
        message = kind.message
        self._here[kind.name].update(row[0] for row in rows)
        nodes: dict[int, Node] = {
            # A column that is NULL leaves its field unset.
            row[0]: message(**dict(zip(fields, row, strict=True)), type=names.get(row[1]))
            for row in rows
        }
        if kind.name == "artifact":
            for node in nodes.values():
                if not node.HasField("uri"):  # type: ignore[arg-type]
                    node.uri = ""  # type: ignore[union-attr]
        default = {node_id: node.properties for node_id, node in nodes.items()}
        custom = {node_id: node.custom_properties for node_id, node in nodes.items()}
        for node_id, name, is_custom, integer, double, text, proto, boolean in owned.properties_of.rows(
            self._connection, nodes
        ):
            value = (custom if is_custom else default)[node_id][name]
            # The usual kinds here, without a call: a list of everything has some ten thousand of them.
            if integer is not None:
                value.int_value = integer
            elif double is not None:
                value.double_value = double
            else:
                fill(value, text, proto, boolean)
        return list(nodes.values())

    def in_order(self, kind: Kind, ids: Sequence[int]) -> list[Node]:
        """Gives those that exist, in the order of the ids."""
        found = {node.id: node for node in self.by_ids(kind, ids)}
        return [found[node_id] for node_id in ids if node_id in found]

    def stamps(self, kind: Kind, ids: Iterable[int]) -> list[Stamp]:
        """Gives those that exist, by id: what `encoded` wants."""
        return [Stamp(*row) for row in tables_of(kind).stamps.rows(self._connection, sorted(set(ids)))]

    def encoded(self, kind: Kind, stamps: Sequence[Stamp]) -> list[bytes]:
        """Gives nodes encoded, each behind its length, in the order of the stamps. For transactions that only read.

        Args:
            kind: Of the nodes.
            stamps: Read in this transaction.
        """
        cache, name = self._cache, kind.name
        found = {stamp.id: cache.get(name, stamp.id, stamp.updated) for stamp in stamps}
        missing = [node_id for node_id, encoded in found.items() if encoded is None]
        for some in chunks(missing):  # not all at once: decoded, a node takes ten times the memory
            for node in self.by_ids(kind, some):
                encoded = sized(node.SerializeToString())
                cache.put(name, node.id, node.last_update_time_since_epoch, encoded)
                found[node.id] = encoded
        return [known for stamp in stamps if (known := found[stamp.id]) is not None]

    def existing(self, kind: Kind, ids: Iterable[int]) -> set[int]:
        """Gives the ids that exist; rows stay, so what this transaction has seen is not asked for again."""
        wanted, here = set(ids), self._here[kind.name]
        if not wanted <= here:
            here.update(row[0] for row in tables_of(kind).existing.rows(self._connection, wanted - here))
        return wanted & here

    def by_name(self, kind: Kind, type_id: int, name: str) -> Node | None:
        """Gives the node of a type and name."""
        rows = tables_of(kind).by_name.rows(self._connection, {"type_id": type_id, "name": name})
        return self.by_ids(kind, [rows[0][0]])[0] if rows else None

    def by_external_ids(self, kind: Kind, external_ids: Sequence[str]) -> list[Node]:
        """Gives those that exist, by id."""
        rows = tables_of(kind).by_external_id.rows(self._connection, external_ids)
        return self.by_ids(kind, [row[0] for row in rows])

    def by_uris(self, uris: Sequence[str]) -> list[Node]:
        """Gives the artifacts that lie there, by id."""
        return self.by_ids(ARTIFACT, [row[0] for row in _BY_URI.rows(self._connection, uris)])

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

    def newest_context(self, name: str, type_name: str = "") -> int | None:
        """Gives the id of the newest context of this name and type; "" is any type."""
        table = tables.contexts
        query = sa.select(table.c.id).where(table.c.name == name).order_by(table.c.id.desc()).limit(1)
        typed = sa.select(tables.types.c.id)
        if type_name:
            typed = typed.where(tables.types.c.name == type_name)
        # By type even where any will do: the index on names begins with the type.
        return self._connection.scalar(query.where(table.c.type_id.in_(typed)))

    def newest_executions(self, type_id: int, inputs: Collection[int] | None, limit: int) -> list[int]:
        """Gives ids of executions of a type, the newest first.

        Args:
            type_id: Theirs.
            inputs: Only those that used one of these artifacts; None: all.
            limit: How many at most.
        """
        table = tables.executions
        query = sa.select(table.c.id).where(table.c.type_id == type_id)
        if inputs is not None:
            used = sa.select(tables.events.c.execution_id).where(
                tables.events.c.artifact_id.in_(sorted(inputs)), tables.events.c.type.in_(sorted(INPUTS))
            )
            query = query.where(table.c.id.in_(used))
        return list(self._connection.scalars(query.order_by(table.c.id.desc()).limit(limit)))

    def _insert_properties(self, kind: Kind, node_id: int, properties: Sequence[Row]) -> None:
        self._unwritten.setdefault(kind.name, []).extend([(node_id, *row) for row in properties])


def _columns(kind: Kind, node: Node) -> dict[str, Any]:
    columns: dict[str, Any] = {"external_id": node.external_id or None}
    if isinstance(node, mlpb.Artifact):
        columns["uri"] = node.uri
    if kind.state_field:
        columns[kind.state_field] = getattr(node, kind.state_field) if node.HasField(kind.state_field) else None  # type: ignore[arg-type]
    return columns


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
