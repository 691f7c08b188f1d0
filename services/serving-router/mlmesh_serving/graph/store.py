"""InferenceGraphs in the database."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import AlreadyExists, NotFound

from mlmesh_serving.graph.tables import INFERENCE_GRAPHS as GRAPHS


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """An InferenceGraph as it is kept.

    Attributes:
        generation: How often its manifest was changed, from 1.
        changed_ms: When it was last, milliseconds since the epoch.
    """

    namespace: str
    name: str
    manifest: Mapping[str, Any]
    generation: int
    changed_ms: int


class GraphStore:
    """Reads and writes InferenceGraphs.

    Args:
        engine: Of the service's database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def create(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> StoredGraph:
        """Adds one.

        Raises:
            AlreadyExists: There is one of this name.
        """
        made = StoredGraph(namespace, name, manifest, 1, _now())

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.insert(GRAPHS).values(namespace=namespace, name=name, **_values(made)))

        try:
            run_transaction(self._engine, write)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists("inferencegraph", name) from error
        return made

    def update(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> StoredGraph:
        """Gives one another manifest; the same again changes nothing.

        Raises:
            NotFound: There is none of this name.
        """

        def write(connection: sa.Connection) -> StoredGraph:
            row = connection.execute(sa.select(GRAPHS).where(_is(namespace, name))).first()
            if row is None:
                raise NotFound("inferencegraph", name)
            old = _stored(row)
            if old.manifest == manifest:
                return old
            made = StoredGraph(namespace, name, manifest, old.generation + 1, _now())
            connection.execute(sa.update(GRAPHS).where(_is(namespace, name)).values(**_values(made)))
            return made

        return run_transaction(self._engine, write)

    def delete(self, namespace: str, name: str) -> None:
        """Removes one.

        Raises:
            NotFound: There is none of this name.
        """

        def write(connection: sa.Connection) -> None:
            if not connection.execute(sa.delete(GRAPHS).where(_is(namespace, name))).rowcount:
                raise NotFound("inferencegraph", name)

        run_transaction(self._engine, write)

    def list(self) -> list[StoredGraph]:
        """Reads all, by namespace and name."""
        with read(self._engine) as connection:
            rows = connection.execute(sa.select(GRAPHS).order_by(GRAPHS.c.namespace, GRAPHS.c.name))
            return [_stored(row) for row in rows]


def _is(namespace: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(GRAPHS.c.namespace == namespace, GRAPHS.c.name == name)


def _values(graph: StoredGraph) -> dict[str, Any]:
    return {
        "manifest": json.dumps(graph.manifest),
        "generation": graph.generation,
        "changed_ms": graph.changed_ms,
    }


def _stored(row: Any) -> StoredGraph:
    return StoredGraph(row.namespace, row.name, json.loads(row.manifest), row.generation, row.changed_ms)


def _now() -> int:
    return time.time_ns() // 1_000_000
