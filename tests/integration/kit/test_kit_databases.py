"""The kit's database tools on SQLite, PostgreSQL and MariaDB: migrations, transactions, leases."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlmesh_kit.database import create_engine, migrate, read, run_transaction
from mlmesh_kit.errors import Unavailable
from mlmesh_kit.lease import LeaseStore, lease_table
from mlmesh_kit.testing import ServiceProcess

PACKAGES = ["mlmesh_pipeline", "mlmesh_katib", "mlmesh_serving", "mlmesh_profile"]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_service_migrates_from_nothing_and_again(database_url: str, package: str) -> None:
    engine = create_engine(database_url)
    migrate(engine, package)
    tables = set(sa.inspect(engine).get_table_names())
    assert f"{package}_version" in tables and len(tables) > 2
    migrate(engine, package)
    assert set(sa.inspect(engine).get_table_names()) == tables
    engine.dispose()


MIGRATE = "import sys; from mlmesh_kit.database import *; migrate(create_engine(sys.argv[1]), sys.argv[2])"


def test_two_processes_migrate_at_once(database_url: str) -> None:
    command = [sys.executable, "-c", MIGRATE, database_url, "mlmesh_pipeline"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    return create_engine(database_url)


metadata = sa.MetaData()
leases = lease_table(metadata)
counters = sa.Table(
    "counters", metadata, sa.Column("name", sa.String(50), primary_key=True), sa.Column("value", sa.Integer)
)


def test_concurrent_transactions_lose_nothing(engine: sa.Engine) -> None:
    """Read, then write what was read plus one: deadlocks and busy databases are retried, updates never lost."""
    metadata.create_all(engine)
    run_transaction(engine, lambda c: c.execute(sa.insert(counters).values(name="n", value=0)))

    def add(connection: sa.Connection) -> None:
        value = connection.scalar(sa.select(counters.c.value).where(counters.c.name == "n").with_for_update())
        connection.execute(sa.update(counters).values(value=value + 1))

    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(25):
                run_transaction(engine, add)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with read(engine) as connection:
        assert connection.scalar(sa.select(counters.c.value)) == 100
    engine.dispose()


def test_a_failed_transaction_leaves_nothing(engine: sa.Engine) -> None:
    metadata.create_all(engine)

    def change(connection: sa.Connection) -> None:
        connection.execute(sa.insert(counters).values(name="a", value=1))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_transaction(engine, change)
    with read(engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(counters)) == 0
    engine.dispose()


def test_two_replicas_race_for_a_lease_and_one_gets_it(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    for round_ in range(10):
        won: list[str] = []
        barrier = threading.Barrier(4)

        def claim(
            owner: str, key: str = f"key-{round_}", won: list[str] = won, all_: threading.Barrier = barrier
        ) -> None:
            store = LeaseStore(engine, leases)
            all_.wait()
            if store.claim(key, owner, 30):
                won.append(owner)

        threads = [threading.Thread(target=claim, args=(f"owner-{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1, won
    engine.dispose()


def test_a_lease_ends_by_the_databases_clock(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    store = LeaseStore(engine, leases)
    assert store.claim("k", "first", 0.5)
    assert store.claim("k", "first", 0.5), "ours already"
    assert not store.claim("k", "second", 30)
    assert store.expired() == []
    deadline = time.monotonic() + 10
    while not store.claim("k", "second", 30):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert store.renew(["k"], "first", 30) == set(), "lost: it must not be worked on any more"
    assert store.renew(["k"], "second", 30) == {"k"}
    store.release("k", "first")
    assert not store.claim("k", "third", 1), "only the holder gives it up"
    store.release("k", "second")
    assert store.claim("k", "third", 0.01)
    deadline = time.monotonic() + 10
    while store.expired("k") != ["k"]:
        assert time.monotonic() < deadline
    assert store.expired("%") == []
    engine.dispose()


def test_a_database_that_goes_away_is_unavailable_and_comes_back(tmp_path: Path) -> None:
    url = "postgresql+psycopg://nobody:secret-password@127.0.0.1:1/none"
    engine = create_engine(url)
    with pytest.raises((Unavailable, sa.exc.DBAPIError)) as caught:
        run_transaction(engine, lambda c: c.execute(sa.select(1)))
    assert "secret-password" not in str(caught.value)


@pytest.mark.parametrize("service", ["profile", "katib", "pipeline", "serving"])
def test_each_service_serves_on_each_database(database_url: str, service: str, tmp_path: Path) -> None:
    import httpx

    prefix = f"MLMESH_{service.upper()}_"
    with ServiceProcess(f"mlmesh_{service}", prefix, tmp_path / "data", {"DATABASE_URL": database_url}) as process:
        assert httpx.get(f"{process.http}/healthz", timeout=10).status_code == 200
