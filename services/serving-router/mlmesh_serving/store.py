"""InferenceServices and their revisions in the database."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import AlreadyExists, NotFound

from mlmesh_serving.tables import INFERENCE_SERVICES as SERVICES
from mlmesh_serving.tables import REVISIONS


@dataclass(frozen=True, slots=True)
class StoredService:
    """An InferenceService as it is kept.

    Attributes:
        revision: Number of the newest revision, from 1.
        unloaded: A client has unloaded the model; it stays so until it is loaded or changed.
    """

    namespace: str
    name: str
    manifest: Mapping[str, Any]
    revision: int
    unloaded: bool


class ServingStore:
    """Reads and writes InferenceServices.

    Args:
        engine: Of the service's database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def create(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> StoredService:
        """Adds one, with revision 1; a name that was used before goes on counting.

        Raises:
            AlreadyExists: There is one of this name.
        """

        def write(connection: sa.Connection) -> StoredService:
            revision = self._next_revision(connection, namespace, name)
            values = {"namespace": namespace, "name": name, "manifest": json.dumps(manifest), "revision": revision}
            connection.execute(sa.insert(SERVICES).values(**values, unloaded=False))
            connection.execute(sa.insert(REVISIONS).values(**values, created_ms=time.time_ns() // 1_000_000))
            return StoredService(namespace, name, manifest, revision, False)

        try:
            return run_transaction(self._engine, write)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists("inferenceservice", name) from error

    def update(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> StoredService:
        """Adds a revision; the same manifest again adds none.

        Raises:
            NotFound: There is none of this name.
        """

        def write(connection: sa.Connection) -> StoredService:
            old = self._get(connection, namespace, name)
            if old.manifest == manifest and not old.unloaded:
                return old
            revision = self._next_revision(connection, namespace, name)
            values = {"manifest": json.dumps(manifest), "revision": revision}
            connection.execute(sa.update(SERVICES).where(_is(namespace, name)).values(**values, unloaded=False))
            connection.execute(
                sa.insert(REVISIONS).values(
                    namespace=namespace, name=name, **values, created_ms=time.time_ns() // 1_000_000
                )
            )
            return StoredService(namespace, name, manifest, revision, False)

        return run_transaction(self._engine, write)

    def set_unloaded(self, namespace: str, name: str, unloaded: bool) -> StoredService:
        """Remembers that a model was loaded or unloaded.

        Raises:
            NotFound: There is none of this name.
        """

        def write(connection: sa.Connection) -> StoredService:
            connection.execute(sa.update(SERVICES).where(_is(namespace, name)).values(unloaded=unloaded))
            return self._get(connection, namespace, name)

        return run_transaction(self._engine, write)

    def delete(self, namespace: str, name: str) -> None:
        """Removes one; its revisions stay, since their numbers are never given twice.

        Raises:
            NotFound: There is none of this name.
        """

        def write(connection: sa.Connection) -> None:
            if not connection.execute(sa.delete(SERVICES).where(_is(namespace, name))).rowcount:
                raise NotFound("inferenceservice", name)

        run_transaction(self._engine, write)

    def list(self) -> list[StoredService]:
        """Reads all, by namespace and name."""
        with read(self._engine) as connection:
            rows = connection.execute(sa.select(SERVICES).order_by(SERVICES.c.namespace, SERVICES.c.name))
            return [_stored(row) for row in rows]

    @staticmethod
    def _get(connection: sa.Connection, namespace: str, name: str) -> StoredService:
        row = connection.execute(sa.select(SERVICES).where(_is(namespace, name))).first()
        if row is None:
            raise NotFound("inferenceservice", name)
        return _stored(row)

    @staticmethod
    def _next_revision(connection: sa.Connection, namespace: str, name: str) -> int:
        last = connection.scalar(
            sa.select(sa.func.max(REVISIONS.c.revision)).where(
                REVISIONS.c.namespace == namespace, REVISIONS.c.name == name
            )
        )
        return int(last or 0) + 1


def _is(namespace: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(SERVICES.c.namespace == namespace, SERVICES.c.name == name)


def _stored(row: Any) -> StoredService:
    return StoredService(row.namespace, row.name, json.loads(row.manifest), row.revision, bool(row.unloaded))
