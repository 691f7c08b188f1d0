"""The same tools against the servers as their makers ship them, in containers, where a Docker engine answers."""

import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.objectstore import open_store

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def engine_answers() -> None:
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no Docker engine: {error}")
    if done.returncode:
        pytest.skip(f"no Docker engine answers: {done.stderr.decode()[:200].strip()}")


@pytest.mark.parametrize("image", ["postgres:15", "mysql:8.4", "mariadb:11"])
def test_migrations(image: str) -> None:
    from testcontainers.mysql import MySqlContainer
    from testcontainers.postgres import PostgresContainer

    container = (
        PostgresContainer(image, driver="psycopg") if "postgres" in image else MySqlContainer(image, dialect="pymysql")
    )
    with container as server:
        database = create_engine(server.get_connection_url())
        for package in ("mlmesh_pipeline", "mlmesh_serving"):
            migrate(database, package)
        assert len(sa.inspect(database).get_table_names()) > 4
        database.dispose()


def test_minio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from testcontainers.minio import MinioContainer

    with MinioContainer() as server:
        server.get_client().make_bucket("tests")
        settings = server.get_config()
        names = {"ENDPOINT": "endpoint", "ACCESS_KEY": "access_key", "SECRET_KEY": "secret_key"}
        for name, key in names.items():
            monkeypatch.setenv(f"MLMESH_S3_{name}", settings[key])
        monkeypatch.setenv("MLMESH_S3_SECURE", "false")
        store = open_store("minio://tests")
        store.put_bytes(b"x", "minio://tests/a/b")
        assert [info.uri for info in store.list("minio://tests/a")] == ["minio://tests/a/b"]
