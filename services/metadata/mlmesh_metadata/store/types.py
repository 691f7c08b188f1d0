"""Types and their properties."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from google.protobuf import json_format
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import SIMPLE_TYPES, Kind, NodeType
from mlmesh_metadata.store.rows import chunks
from mlmesh_metadata.tables import parent_types, type_properties, types

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
        same_version = types.c.version == version if version else types.c.version.is_(None)
        found = self._load(kind, types.c.name == name, same_version)
        return found[0] if found else None

    def all(self, kind: Kind) -> list[NodeType]:
        """Gives the types that users put, by id; MLMD's simple types are not theirs."""
        return self._load(kind, types.c.name.not_in(SIMPLE_TYPES))

    def by_ids(self, kind: Kind, ids: Iterable[int]) -> dict[int, NodeType]:
        """Gives those that exist, as they are now."""
        found: dict[int, NodeType] = {}
        for some in chunks(sorted(set(ids))):
            for one in self._load(kind, types.c.id.in_(some)):
                found[one.id] = one
                if one.id not in self.changed:
                    self._cache[kind.name, one.id] = one
        return found

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
        found = [t for some in chunks(external_ids) for t in self._load(kind, types.c.external_id.in_(some))]
        return sorted(found, key=lambda found: found.id)

    def external_id_taken(self, external_id: str) -> bool:
        """Whether a type, of any kind, has it."""
        return self._connection.scalar(sa.select(types.c.id).where(types.c.external_id == external_id)) is not None

    def _load(self, kind: Kind, *conditions: sa.ColumnElement[bool]) -> list[NodeType]:
        query = sa.select(types).where(types.c.type_kind == kind.number, *conditions).order_by(types.c.id)
        found: dict[int, NodeType] = {}
        for row in self._connection.execute(query):
            made = kind.type_message(id=row.id, name=row.name)
            for field in ("version", "description", "external_id"):
                if getattr(row, field) is not None:
                    setattr(made, field, getattr(row, field))
            if isinstance(made, mlpb.ExecutionType):
                for field in ("input_type", "output_type"):
                    if getattr(row, field):
                        json_format.Parse(getattr(row, field), getattr(made, field))
            found[row.id] = made
        numbers = {name: number for number, name in kind.bases}
        for some in chunks(list(found)):
            properties = sa.select(type_properties).where(type_properties.c.type_id.in_(some))
            for row in self._connection.execute(properties):
                found[row.type_id].properties[row.name] = row.data_type
            if not numbers:
                continue
            base = sa.select(parent_types.c.type_id, types.c.name).join(
                types, types.c.id == parent_types.c.parent_type_id
            )
            for row in self._connection.execute(base.where(parent_types.c.type_id.in_(some))):
                if row.name in numbers:
                    found[row.type_id].base_type = numbers[row.name]  # type: ignore[assignment]
        return list(found.values())
