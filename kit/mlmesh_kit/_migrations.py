"""Alembic without its boilerplate: a service has `migrations/versions/NNNN_title.py`, and nothing else."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory


def upgrade(engine: sa.Engine, folder: Path, version_table: str) -> None:
    """Runs what is missing, in one transaction where the database has transactions for tables.

    Args:
        engine: Of the service's database.
        folder: Holds `versions/`.
        version_table: Where the revision is kept. Each service has a database of its own: their tables' names clash.
    """
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    script = ScriptDirectory.from_config(config)

    def missing(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs("head", revision)

    with engine.connect() as connection, _alone(connection, version_table), connection.begin():
        context = MigrationContext.configure(connection, opts={"version_table": version_table, "fn": missing})
        with Operations.context(context):
            context.run_migrations()


@contextmanager
def _alone(connection: sa.Connection, name: str) -> Iterator[None]:
    """Keeps other replicas waiting. On SQLite the transaction itself does (BEGIN IMMEDIATE)."""
    dialect = connection.dialect.name
    number = zlib.crc32(name.encode())
    if dialect == "postgresql":
        with connection.begin():
            connection.execute(sa.select(sa.func.pg_advisory_lock(number)))
    elif dialect in {"mysql", "mariadb"}:
        with connection.begin():
            connection.execute(sa.select(sa.func.get_lock(name, 60)))
    try:
        yield
    finally:
        if dialect == "postgresql":
            with connection.begin():
                connection.execute(sa.select(sa.func.pg_advisory_unlock(number)))
        elif dialect in {"mysql", "mariadb"}:
            with connection.begin():
                connection.execute(sa.select(sa.func.release_lock(name)))
