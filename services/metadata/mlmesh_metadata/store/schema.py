"""Makes the tables in an empty database, and checks that those of another are ours to use."""

import sqlalchemy as sa
from mlmesh_kit.database import run_transaction
from mlmesh_kit.errors import FailedPrecondition

from mlmesh_metadata import tables
from mlmesh_metadata.kinds import ARTIFACT, EXECUTION


def prepare(engine: sa.Engine) -> None:
    """Makes MLMD's tables and its simple types where there are none yet; adds our indexes.

    Replicas that start at once on one database wait for one another's transaction.

    Raises:
        FailedPrecondition: The database has MLMD's tables in another version than 10.
    """

    def make(connection: sa.Connection) -> None:
        version = None
        if sa.inspect(connection).has_table(tables.env.name):
            version = connection.scalar(sa.select(tables.env.c.schema_version))
        if version is None:
            tables.metadata.create_all(connection)
            connection.execute(sa.insert(tables.env).values(schema_version=tables.SCHEMA_VERSION))
            simple = [
                {"name": name, "type_kind": kind.number} for kind in (ARTIFACT, EXECUTION) for _, name in kind.bases
            ]
            connection.execute(sa.insert(tables.types), simple)
        elif version != tables.SCHEMA_VERSION:
            older = version < tables.SCHEMA_VERSION
            raise FailedPrecondition(
                f"the database has ML Metadata's schema version {version}, and version {tables.SCHEMA_VERSION} is "
                "needed: "
                + (
                    "let ml-metadata 1.17 upgrade it (enable_upgrade_migration)"
                    if older
                    else "it was made by a later one"
                )
                + "; it was left as it is"
            )
        for index in tables.added_indexes:
            index.create(connection, checkfirst=True)

    run_transaction(engine, make)
