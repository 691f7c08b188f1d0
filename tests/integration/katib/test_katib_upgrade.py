"""A database of the first version becomes one of today's, with what is in it."""

import json
from pathlib import Path

import mlmesh_katib
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from mlmesh_katib.experiment import TrialState
from mlmesh_katib.store import KatibStore
from mlmesh_kit.database import create_engine, migrate

MIGRATIONS = Path(mlmesh_katib.__file__).parent / "migrations"
RUNNING = [{"type": "Running", "holds": True, "reason": "TrialRunning", "message": "", "at_ms": 5}]


def first_version(engine: sa.Engine, monkeypatch) -> sa.MetaData:
    """Makes the tables as the first version did."""
    whole = ScriptDirectory._upgrade_revs
    with monkeypatch.context() as patched:
        patched.setattr(ScriptDirectory, "_upgrade_revs", lambda script, _, at: whole(script, "0001", at))
        migrate(engine, "mlmesh_katib")
    tables = sa.MetaData()
    tables.reflect(engine)
    return tables


def test_an_upgrade_keeps_experiments_trials_and_reports(database_url, monkeypatch):
    engine = create_engine(database_url)
    tables = first_version(engine, monkeypatch).tables
    assert "pid" in tables["trials"].c and "namespace" not in tables["observation_logs"].c
    experiment = {"manifest": '{"spec": {}}', "conditions": "[]", "active": True, "created_ms": 5}
    trial = {"assignments": '{"x": "1"}', "state": "Running", "observation": "[]", "attempts": 1, "started_ms": 5}
    with engine.begin() as connection:
        for key, (namespace, name) in enumerate((("b", "same"), ("a", "same"), ("a", "other")), 1):
            row = {"id": key, "namespace": namespace, "name": name, **experiment}
            connection.execute(tables["experiments"].insert(), row)
            row = {"experiment_id": key, "number": 1, "name": f"{name}-1", "conditions": json.dumps(RUNNING), **trial}
            connection.execute(tables["trials"].insert(), {**row, "pid": 100 + key, "process_started": 1.5})
        for name, value in (("same-1", "1"), ("other-1", "2"), ("elsewhere", "3"), ("same-1", "4")):
            log = {"trial_name": name, "time": "2026-01-01T00:00:00.000000Z", "metric_name": "loss", "value": value}
            connection.execute(tables["observation_logs"].insert(), log)
        connection.execute(tables["outbox"].insert(), {"experiment_id": 1, "trial_number": 0})
    migrate(engine, "mlmesh_katib")
    store = KatibStore(engine)

    def values(namespace: str, trial: str) -> list[str]:
        return [log.value for _, log in store.reports(namespace, trial)]

    kept = store.get_experiment("b", "same")
    assert (kept.active, kept.manifest, kept.settings, kept.paused) == (True, {"spec": {}}, {}, False)
    found = store.trials(kept.id)[0]
    assert (found.name, found.state, found.assignments) == ("same-1", TrialState.RUNNING, {"x": "1"})
    assert found.reference == {"pid": 101, "started": 1.5}  # so that what was left running can be killed
    assert store.outbox(10)[0][1:] == (1, 0)
    # What two trials of one name shared, each has; what is of no trial here is of a controller somewhere else.
    assert values("a", "same-1") == values("b", "same-1") == ["1", "4"]
    assert (values("a", "other-1"), values("b", "other-1"), values("", "elsewhere")) == (["2"], [], ["3"])
    assert values("", "same-1") == []
    store.delete_experiment("b", "same")
    assert (values("a", "same-1"), values("b", "same-1")) == (["1", "4"], [])
    engine.dispose()
