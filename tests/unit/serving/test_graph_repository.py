"""Graphs that are kept: in the database, and again in memory when the service starts anew."""

import asyncio

import pytest
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from mlmesh_serving.graph.repository import GraphRepository
from mlmesh_serving.graph.store import GraphStore
from mlmesh_serving.remote.hosts import LOOPBACK, parse_hosts


def manifest(name: str, **target) -> dict:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": name},
        "spec": {"nodes": {"root": {"routerType": "Sequence", "steps": [target or {"serviceName": "a"}]}}},
    }


@pytest.fixture
def store(database_url) -> GraphStore:
    engine = create_engine(database_url)
    migrate(engine, "mlmesh_serving")
    return GraphStore(engine)


def test_what_was_made_and_changed_is_there_after_a_restart(store) -> None:
    async def run() -> None:
        repository = GraphRepository(store, parse_hosts(LOOPBACK))
        async with repository.running():
            for name in ("kept", "gone", "changed"):
                assert (await repository.create("ns", manifest(name))).stored.generation == 1
            with pytest.raises(AlreadyExists):
                await repository.create("ns", manifest("kept"))
            await repository.create("other", manifest("kept"))
            await repository.delete("ns", "gone")
            with pytest.raises(NotFound):
                await repository.delete("ns", "gone")
            with pytest.raises(NotFound):
                await repository.update("ns", "gone", manifest("gone"))
            with pytest.raises(InvalidArgument, match="must be 'kept'"):
                await repository.update("ns", "kept", manifest("other"))
            changed = manifest("changed", serviceUrl="http://127.0.0.1:1/x")
            assert (await repository.update("ns", "changed", changed)).stored.generation == 2
            assert (await repository.update("ns", "changed", changed)).stored.generation == 2

        again = GraphRepository(store, parse_hosts(LOOPBACK))
        async with again.running():
            assert [served.stored.name for served in again.list("ns")] == ["changed", "kept"]
            assert again.list("ns") == repository.list("ns")
            assert again.ready("ns", "kept").services == {"a"}
            with pytest.raises(NotFound):
                again.ready("ns", "gone")

        strict = GraphRepository(store, parse_hosts(""))  # the settings allow less than they did
        async with strict.running():
            assert strict.ready("ns", "kept")
            with pytest.raises(FailedPrecondition, match=r"cannot be run: .*127\.0\.0\.1 is no host"):
                strict.ready("ns", "changed")

    asyncio.run(run())
