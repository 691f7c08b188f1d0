"""What waits or runs while something else dies or pauses."""

import asyncio
from pathlib import Path

import psutil
from integration.katib.client import Client, manifest, wait_until
from mlmesh_katib.config import Settings
from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.experiment import TrialState
from mlmesh_katib.store import KatibStore
from mlmesh_katib.tables import LEASES
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.lease import LeaseStore
from mlmesh_kit.testing import ServiceProcess

ONE = {"maxTrialCount": 1, "parallelTrialCount": 1}


def held_by(gate: Path, starts: Path) -> str:
    """A trial that notes that it has started, and ends when there is a file."""
    return (
        "import pathlib, time\n"
        f"with open({str(starts)!r}, 'a') as file: file.write('x')\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n"
        "print('loss = 1')\n"
    )


def started(starts: Path) -> int | None:
    return len(starts.read_text()) if starts.exists() else None


def test_a_trial_whose_launcher_is_killed_runs_again(client: Client, service: ServiceProcess, tmp_path: Path) -> None:
    gate, starts = tmp_path / "gate", tmp_path / "starts"
    client.create(manifest("orphaned", held_by(gate, starts), **ONE))
    wait_until(lambda: started(starts))
    wait_until(lambda: client.get("orphaned").status.trials_running or None)
    launchers = psutil.Process(service.pid).children()
    assert launchers
    for launcher in launchers:
        launcher.kill()
    wait_until(lambda: (started(starts) or 0) == 2 or None)
    gate.touch()
    found = client.wait("orphaned")
    assert (found.status.trials, found.status.trials_succeeded) == (1, 1)
    trial = client.trials("orphaned")[0]
    assert (trial.attempts, trial.observation.metrics[0].latest) == (2, "1")


def test_a_trial_that_waited_for_a_slot_when_its_experiment_was_paused_starts_after_it_goes_on(tmp_path: Path) -> None:
    gate, starts = tmp_path / "gate", tmp_path / "starts"
    gate.touch()

    async def scenario() -> None:
        settings = Settings(data_dir=tmp_path, preload="", max_running_trials=1, lease_seconds=2)
        database = create_engine(settings.resolved_database_url)
        migrate(database, "mlmesh_katib")
        store, leases = KatibStore(database), LeaseStore(database, LEASES)

        async def until(experiment: int, *states: TrialState) -> None:
            while [trial.state for trial in store.trials(experiment)] != list(states):  # noqa: ASYNC110  # the store tells nobody
                await asyncio.sleep(0.02)

        engine = ExperimentEngine(store, leases, settings)
        async with engine.running(), asyncio.timeout(30):
            holds = engine.create("default", manifest("holds", "import time; time.sleep(600)", **ONE))
            engine.wake()
            await until(holds.id, TrialState.RUNNING)
            waits = engine.create("default", manifest("waits", held_by(gate, starts), **ONE))
            engine.wake()
            await until(waits.id, TrialState.CREATED)
            await engine.pause("default", "waits", paused=True)
        engine = ExperimentEngine(store, leases, settings)
        async with engine.running(), asyncio.timeout(30):
            await engine.delete("default", "holds")  # the slot is free
            done = engine.create("default", manifest("done", "print('loss = 1')", **ONE))
            engine.wake()
            await until(done.id, TrialState.SUCCEEDED)  # others go on, the one that is paused does not
            assert [trial.state for trial in store.trials(waits.id)] == [TrialState.CREATED]
            assert started(starts) is None
            await engine.pause("default", "waits", paused=False)
            await until(waits.id, TrialState.SUCCEEDED)
        database.dispose()

    asyncio.run(scenario())
