"""The engine, with a database that is slow at the worst moment."""

import asyncio
import threading

from integration.katib.client import manifest
from mlmesh_katib.config import Settings
from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.experiment import TrialState
from mlmesh_katib.store import KatibStore
from mlmesh_katib.tables import LEASES
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.lease import LeaseStore

SPACE = [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}]


class SlowStore(KatibStore):
    """Writes the first trial's end only after the second's; notes what is stored when an experiment ends."""

    def __init__(self, engine) -> None:
        super().__init__(engine)
        self.second_ended = threading.Event()
        self.ended = threading.Event()
        self.at_the_end: list[TrialState] = []

    def save_trial(self, experiment_id, trial) -> None:
        if trial.state is TrialState.SUCCEEDED and trial.number == 1:
            # Long enough for an engine that does not wait for this write to end the experiment before it.
            assert self.second_ended.wait(30)
            threading.Event().wait(0.3)
        super().save_trial(experiment_id, trial)
        if trial.state is TrialState.SUCCEEDED and trial.number == 2:
            self.second_ended.set()

    def set_conditions(self, experiment_id, conditions, *, over) -> None:
        if over:
            self.at_the_end = [trial.state for trial in self.trials(experiment_id)]
        super().set_conditions(experiment_id, conditions, over=over)
        if over:
            self.ended.set()


def test_an_experiment_ends_after_its_last_trial_is_stored(tmp_path):
    async def scenario() -> None:
        settings = Settings(data_dir=tmp_path, preload="")
        database = create_engine(settings.resolved_database_url)
        migrate(database, "mlmesh_katib")
        store = SlowStore(database)
        engine = ExperimentEngine(store, LeaseStore(database, LEASES), settings)
        made = manifest("two", "print('loss = 1')", parameters=SPACE, maxTrialCount=2, parallelTrialCount=2)
        async with engine.running(), asyncio.timeout(60):
            experiment = engine.create("default", made)
            engine.wake()
            assert store.get_experiment_by_id(experiment.id).active
            await asyncio.to_thread(store.ended.wait, 30)
        assert store.at_the_end == [TrialState.SUCCEEDED, TrialState.SUCCEEDED]

    asyncio.run(scenario())
