"""Early stopping, and algorithms that break, in the engine."""

import asyncio

import pytest
from integration.katib.client import manifest
from mlmesh_katib import experiment_run
from mlmesh_katib.algorithms import ALGORITHMS
from mlmesh_katib.config import Settings
from mlmesh_katib.early_stopping import EARLY_STOPPING, EarlyStopping
from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.experiment import TrialState
from mlmesh_katib.store import KatibStore
from mlmesh_katib.tables import LEASES
from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.lease import LeaseStore

SPACE = [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}]


class AboveFive(EarlyStopping):
    name = "above-five"

    def validate(self, settings) -> None:
        pass

    def decide(self, settings, trial, others) -> str | None:
        return "above five" if trial.losses[-1] > 5 else None


def run(tmp_path, made) -> tuple[list, list]:
    async def scenario() -> tuple[list, list]:
        settings = Settings(data_dir=tmp_path, preload="")
        database = create_engine(settings.resolved_database_url)
        migrate(database, "mlmesh_katib")
        store = KatibStore(database)
        engine = ExperimentEngine(store, LeaseStore(database, LEASES), settings)
        async with engine.running(), asyncio.timeout(30):
            experiment = engine.create("default", made)
            engine.wake()
            while (found := store.get_experiment_by_id(experiment.id)).active:  # noqa: ASYNC110  # the store tells nobody
                await asyncio.sleep(0.05)
            return list(found.conditions), store.trials(experiment.id)

    return asyncio.run(scenario())


def test_a_trial_that_is_stopped_early_counts_with_what_it_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(EARLY_STOPPING, "above-five", AboveFive())
    code = "import time; print('loss = 2', flush=True); print('loss = 7', flush=True); time.sleep(600)"
    rule = {"algorithmName": "above-five"}
    conditions, trials = run(tmp_path, manifest("stops", code, parameters=SPACE, maxTrialCount=2, earlyStopping=rule))
    assert conditions[-1].reason == "ExperimentMaxTrialsReached"
    assert {trial.state for trial in trials} == {TrialState.EARLY_STOPPED}
    assert trials[0].conditions[-1].reason == "TrialEarlyStopped"
    assert "above five" in trials[0].conditions[-1].message
    assert trials[0].observation[0].min == "2"


def test_an_algorithm_that_breaks_fails_the_experiment(tmp_path, monkeypatch):
    def broken(question, count):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(ALGORITHMS["random"], "answer", broken)
    monkeypatch.setattr(experiment_run, "_RETRY_SECONDS", 0.05)
    conditions, trials = run(tmp_path, manifest("breaks", parameters=SPACE))
    assert (conditions[-1].type, trials) == ("Failed", [])
    assert "no such luck" in conditions[-1].message


@pytest.mark.parametrize("server", ["postgresql_server", "mariadb_server"])
def test_the_tables_are_made_by_other_databases(server, request):
    database = create_engine(request.getfixturevalue(server).make_database())
    migrate(database, "mlmesh_katib")
    store = KatibStore(database)
    made = store.create_experiment("default", "kept", {"spec": {}})
    store.add_trials(made.id, [], {"state": "1"})
    assert store.get_experiment("default", "kept").settings == {"state": "1"}
    database.dispose()
