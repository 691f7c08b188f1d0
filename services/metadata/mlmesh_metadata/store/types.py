"""Types and their properties."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from google.protobuf import json_format
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import SIMPLE_TYPES, Kind, NodeType
from mlmesh_metadata.store.prepared import Prepared, PreparedIn
from mlmesh_metadata.tables import parent_types, type_properties, types

_COLUMNS = (
    types.c.id,
    types.c.name,
    types.c.version,
    types.c.description,
    types.c.input_type,
    types.c.output_type,
    types.c.external_id,
)
_OF_KIND = sa.select(*_COLUMNS).where(types.c.type_kind == sa.bindparam("kind")).order_by(types.c.id)
_NAMED = _OF_KIND.where(types.c.name == sa.bindparam("name"))
_BY_VERSION = Prepared(_NAMED.where(types.c.version == sa.bindparam("version")))
_WITHOUT_VERSION = Prepared(_NAMED.where(types.c.version.is_(None)))
_BY_IDS = PreparedIn(lambda values: _OF_KIND.where(types.c.id.in_(values)))
_BY_EXTERNAL_IDS = PreparedIn(lambda values: _OF_KIND.where(types.c.external_id.in_(values)))
_PROPERTIES_OF = PreparedIn(
    lambda values: sa.select(type_properties.c.type_id, type_properties.c.name, type_properties.c.data_type).where(
        type_properties.c.type_id.in_(values)
    )
)
_BASES_OF = PreparedIn(
    lambda values: (
        sa.select(parent_types.c.type_id, types.c.name)
        .join(types, types.c.id == parent_types.c.parent_type_id)
        .where(parent_types.c.type_id.in_(values))
    )
)

TypeCache: TypeAlias = dict[tuple[str, int], NodeType]
"""By name of the kind and id."""


class TypeRows:
    """Types, in one transaction.

    Args:
        connection: Of the transaction.
        cache: Of the process: types as they were once committed. A type never loses a property, and keeps its name, so
            one from the cache is at worst not the newest.
    """

    def __init__(self, connection: sa.Connection, cache: TypeCache) -> None:
        self._connection = connection
        self._cache = cache
        self.changed: set[int] = set()
        """Ids of the types that this transaction has made or changed."""

    def insert(self, kind: Kind, given: NodeType) -> int:
        """Stores a new type with its properties; gives its id."""
        values: dict[str, Any] = {"name": given.name, "type_kind": kind.number}
        for field in ("version", "description", "external_id"):
            if given.HasField(field) and getattr(given, field):
                values[field] = getattr(given, field)
        if isinstance(given, mlpb.ExecutionType):
            for field in ("input_type", "output_type"):
                if given.HasField(field):  # type: ignore[arg-type]
                    values[field] = json_format.MessageToJson(getattr(given, field), indent=None)
        result = self._connection.execute(sa.insert(types).values(values))
        assert result.inserted_primary_key is not None
        type_id = int(result.inserted_primary_key[0])
        self.add_properties(type_id, given.properties)
        return type_id

    def add_properties(self, type_id: int, properties: Mapping[str, int]) -> None:
        """Stores properties that the type did not have."""
        if properties:
            rows = [{"type_id": type_id, "name": name, "data_type": kind} for name, kind in properties.items()]
            self._connection.execute(sa.insert(type_properties), rows)
        self.changed.add(type_id)

    def update(self, type_id: int, **columns: Any) -> None:
        """Changes columns of a type."""
        self._connection.execute(sa.update(types).where(types.c.id == type_id).values(columns))
        self.changed.add(type_id)

    def set_base(self, type_id: int, base_name: str) -> None:
        """Makes one of MLMD's simple types the parent of a type."""
        base = sa.select(types.c.id).where(types.c.name == base_name, types.c.version.is_(None)).scalar_subquery()
        self._connection.execute(sa.insert(parent_types).values(type_id=type_id, parent_type_id=base))
        self.changed.add(type_id)

    def find(self, kind: Kind, name: str, version: str = "") -> NodeType | None:
        """Gives the type of a name and version ("": the one without)."""
        query = _BY_VERSION if version else _WITHOUT_VERSION
        found = self._made(kind, query.rows(self._connection, {"kind": kind.number, "name": name, "version": version}))
        return found[0] if found else None

    def all(self, kind: Kind) -> list[NodeType]:
        """Gives the types that users put, by id; MLMD's simple types are not theirs."""
        query = sa.select(*_COLUMNS).where(types.c.type_kind == kind.number, types.c.name.not_in(SIMPLE_TYPES))
        return self._made(kind, self._connection.execute(query.order_by(types.c.id)).all())

    def by_ids(self, kind: Kind, ids: Iterable[int]) -> dict[int, NodeType]:
        """Gives those that exist, as they are now."""
        found: dict[int, NodeType] = {}
        for one in self._made(kind, _BY_IDS.rows(self._connection, sorted(set(ids)), kind=kind.number)):
            found[one.id] = one
            if one.id not in self.changed:
                self._cache[kind.name, one.id] = one
        return found

    def remembered(self, kind: Kind, type_id: int) -> NodeType | None:
        """Gives a type as it was last read, perhaps without the properties that another process has added."""
        return None if type_id in self.changed else self._cache.get((kind.name, type_id))

    def known(self, kind: Kind, ids: Iterable[int]) -> dict[int, NodeType]:
        """Gives those that exist, perhaps without the properties that another process has added. Never change them."""
        wanted = set(ids)
        found = {
            type_id: self._cache[kind.name, type_id]
            for type_id in wanted - self.changed
            if (kind.name, type_id) in self._cache
        }
        missing = wanted - found.keys()
        return {**found, **self.by_ids(kind, missing)} if missing else found

    def by_external_ids(self, kind: Kind, external_ids: Sequence[str]) -> list[NodeType]:
        """Gives those that exist, by id."""
        rows = _BY_EXTERNAL_IDS.rows(self._connection, external_ids, kind=kind.number)
        return self._made(kind, {row[0]: row for _, row in sorted((row[0], row) for row in rows)}.values())

    def external_id_taken(self, external_id: str) -> bool:
        """Whether a type, of any kind, has it."""
        return self._connection.scalar(sa.select(types.c.id).where(types.c.external_id == external_id)) is not None

    def _made(self, kind: Kind, rows: Iterable[Any]) -> list[NodeType]:
        """Makes types of rows that hold `_COLUMNS`, in their order."""
        found: dict[int, NodeType] = {}
        for type_id, name, version, description, input_type, output_type, external_id in rows:
            # A column that is NULL leaves its field unset.
            made = kind.type_message(
                id=type_id, name=name, version=version, description=description, external_id=external_id
            )
            if isinstance(made, mlpb.ExecutionType):
                if input_type:
                    json_format.Parse(input_type, made.input_type)
                if output_type:
                    json_format.Parse(output_type, made.output_type)
            found[type_id] = made
        if found:
            for type_id, name, data_type in _PROPERTIES_OF.rows(self._connection, found):
                found[type_id].properties[name] = data_type
            numbers = {name: number for number, name in kind.bases}
            if numbers:
                for type_id, name in _BASES_OF.rows(self._connection, found):
                    if name in numbers:
                        found[type_id].base_type = numbers[name]  # type: ignore[assignment]
        return list(found.values())
