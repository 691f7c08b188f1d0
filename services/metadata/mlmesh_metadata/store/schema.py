"""Makes the tables in an empty database, and checks that those of another are ours to use."""

import sqlalchemy as sa
from mlmesh_kit.database import exclusively, migrate
from mlmesh_kit.errors import FailedPrecondition

from mlmesh_metadata import tables
from mlmesh_metadata.kinds import ARTIFACT, EXECUTION


def prepare(engine: sa.Engine) -> None:
    """Makes MLMD's tables and its simple types where there are none yet; adds our indexes and tables.

    Replicas that start at once on one database wait for one another.

    Raises:
        FailedPrecondition: The database has MLMD's tables in another version than 10.
    """

    def make(connection: sa.Connection) -> None:
        version = None
        if sa.inspect(connection).has_table(_stored_name(connection, tables.env)):
            version = connection.scalar(sa.select(tables.env.c.schema_version))
        if version is None:
            tables.metadata.create_all(connection, checkfirst=False)
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
            known = sa.inspect(connection).get_indexes(_stored_name(connection, index.table))
            if index.name not in {found["name"] for found in known}:
                index.create(connection)

    with engine.connect() as connection, exclusively(connection, "mlmesh_metadata"), connection.begin():
        make(connection)
    migrate(engine, "mlmesh_metadata")


def _stored_name(connection: sa.Connection, table: sa.Table | None) -> str:
    """Gives a table's name as the database keeps it: what MLMD does not quote, PostgreSQL has in lower case."""
    assert table is not None
    return table.name.lower() if connection.dialect.name == "postgresql" else str(table.name)
