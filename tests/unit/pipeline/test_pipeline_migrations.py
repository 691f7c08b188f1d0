from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from mlmesh_kit.database import create_engine, migrate
from mlmesh_pipeline.tables import metadata


def test_the_migrations_make_the_tables(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    migrate(engine, "mlmesh_pipeline")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "mlmesh_pipeline_version"})
        assert compare_metadata(context, metadata) == []
