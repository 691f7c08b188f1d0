"""Alembic without its boilerplate: a service has `migrations/versions/NNNN_title.py`, and nothing else."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from mlmesh_kit.database import exclusively


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

    with engine.connect() as connection, exclusively(connection, version_table), connection.begin():
        context = MigrationContext.configure(connection, opts={"version_table": version_table, "fn": missing})
        with Operations.context(context):
            context.run_migrations()
