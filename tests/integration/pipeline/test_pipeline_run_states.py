"""States of runs in the database, on each database: who drives a run and who terminates it write at the same time."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.lease import LeaseStore
from mlmesh_pipeline.resources import Run, RuntimeState
from mlmesh_pipeline.store import RunStore
from mlmesh_pipeline.store.fence import Fence, LostLease
from mlmesh_pipeline.tables import leases


@pytest.fixture
def engine(database_url: str) -> Iterator[Any]:
    made = create_engine(database_url)
    migrate(made, "mlmesh_pipeline")
    yield made
    made.dispose()


@pytest.fixture
def run(engine: Any) -> tuple[RunStore, str, Fence]:
    """A run, and the lease of who drives it."""
    store, run_id = RunStore(engine), str(uuid.uuid4())
    store.create(Run(run_id, "default", "e", "r", "p", "", {}, state=RuntimeState.PENDING), {"a": 1})
    fence = Fence(f"run/{run_id}", "me")
    assert LeaseStore(engine, leases).claim(fence.key, fence.owner, 60)
    return store, run_id, fence


def test_a_wish_to_terminate_is_not_lost_over_the_start(run: tuple[RunStore, str, Fence]) -> None:
    store, run_id, fence = run
    assert store.ask_to_cancel(run_id) == RuntimeState.CANCELING
    assert store.set_state(run_id, RuntimeState.RUNNING, None, fence) == RuntimeState.CANCELING
    assert store.state(run_id) == RuntimeState.CANCELING
    assert store.set_state(run_id, RuntimeState.CANCELED, None, fence) == RuntimeState.CANCELED
    assert store.state(run_id) == RuntimeState.CANCELED


def test_who_has_lost_the_lease_changes_nothing(engine: Any, run: tuple[RunStore, str, Fence]) -> None:
    store, run_id, fence = run
    LeaseStore(engine, leases).release(fence.key, fence.owner)
    with pytest.raises(LostLease):
        store.set_state(run_id, RuntimeState.RUNNING, None, fence)
    assert store.state(run_id) == RuntimeState.PENDING
