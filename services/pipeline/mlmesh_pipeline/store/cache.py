"""Outputs of tasks by fingerprint."""

from mlmesh_kit.database import read
from sqlalchemy import Engine, select

from mlmesh_pipeline.resources import Values
from mlmesh_pipeline.store.codec import load_values
from mlmesh_pipeline.tables import cache


class CacheStore:
    """What tasks gave, for tasks that would give the same.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, fingerprint: str, namespace: str) -> tuple[str, Values] | None:
        """Gives the id of the task of this fingerprint and its outputs, if there is one."""
        with read(self._engine) as connection:
            row = connection.execute(
                select(cache.c.task_id, cache.c.outputs).where(
                    cache.c.fingerprint == fingerprint, cache.c.namespace == namespace
                )
            ).first()
        return (row.task_id, load_values(row.outputs)) if row else None
