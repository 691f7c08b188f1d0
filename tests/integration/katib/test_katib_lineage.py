"""What a real metadata service is told of experiments: all of it, once, whoever is away or killed meanwhile."""

import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from integration.katib.client import PARABOLA, Client, assignments, held, manifest, wait_until
from integration.katib.metadata_service import Metadata
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.api.v1.beta1 import api_pb2
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.mlmesh.metadata.v1 import lineage_pb2, lineage_pb2_grpc

SLOW = "import sys, time; time.sleep(0.15); print('loss =', float(sys.argv[1]))"


def check_whole(found: SimpleNamespace, trials: list[Any]) -> None:
    """What the metadata service has is what the service itself says of the trials, each once."""
    names = {trial.name.rsplit("/", 1)[1]: trial for trial in trials}
    succeeded = {name for name, trial in names.items() if "Succeeded" in held(trial.conditions)}
    assert found.count == (len(names), len(succeeded))
    assert set(found.executions) == set(names) and set(found.artifacts) == succeeded
    for name, execution in found.executions.items():
        expected = mlmd.Execution.COMPLETE if name in succeeded else mlmd.Execution.FAILED
        assert execution.last_known_state == expected, name
        own = {key: value.string_value for key, value in execution.custom_properties.items() if key != "attempts"}
        parameters = {f"parameter/{key}": value for key, value in assignments(names[name]).items()}
        metrics = {f"metric/{metric.name}": metric.latest for metric in names[name].observation.metrics}
        assert own == {**parameters, **metrics}
        assert execution.custom_properties["attempts"].int_value == names[name].attempts
    made = Counter((event.execution_id, event.artifact_id, event.type) for event in found.events)
    outputs = {(found.executions[n].id, found.artifacts[n].id, mlmd.Event.OUTPUT) for n in succeeded}
    assert made == dict.fromkeys(outputs, 1)


def test_the_metadata_service_is_away(metadata: Metadata, katib: ServiceProcess) -> None:
    metadata.down()
    client = Client(katib)
    client.create(manifest("before"))
    assert "Succeeded" in held(client.wait("before").status.conditions)  # nobody waits for lineage
    metadata.up()
    check_whole(metadata.wait("before", 6), client.trials("before"))
    client.create(manifest("during", SLOW, maxTrialCount=6, maxFailedTrialCount=0))
    wait_until(lambda: (client.get("during").status.trials_succeeded >= 2) or None)
    metadata.down()
    found = client.wait("during")
    assert (found.status.trials_succeeded, "Succeeded" in held(found.status.conditions)) == (6, True)
    metadata.up()
    check_whole(metadata.wait("during", 6), client.trials("during"))


def test_an_experiment_and_its_trials(metadata: Metadata, katib: ServiceProcess) -> None:
    metadata.up()
    # Somebody else has given these types properties of their own.
    note = {"note": mlmd.STRING}
    job, group = (
        kind(name=name, properties=note)
        for kind, name in ((mlmd.ExecutionType, "katib.Trial"), (mlmd.ContextType, "katib.Experiment"))
    )
    metadata.call("PutExecutionType", execution_type=job, can_add_fields=True)
    metadata.call("PutContextType", context_type=group, can_add_fields=True)
    metadata.down()  # so that the publisher asks for its types again
    metadata.up()
    client = Client(katib)
    code = PARABOLA + "; sys.exit(x > 4)"
    client.create(manifest("told", code, maxTrialCount=11, maxFailedTrialCount=5, algorithm={"algorithmName": "grid"}))
    assert "Succeeded" in held(client.wait("told").status.conditions)
    found = metadata.wait("told", 11)
    check_whole(found, client.trials("told"))
    assert Counter(execution.last_known_state for execution in found.executions.values()) == {
        mlmd.Execution.COMPLETE: 9,
        mlmd.Execution.FAILED: 2,
    }
    told = {key: value.string_value for key, value in found.context.custom_properties.items()}
    assert told == {"namespace": "default", "algorithm": "grid", "objective": "loss", "state": "Succeeded"}
    best = client.get("told").status.current_optimal_trial.best_trial_name
    artifact = found.artifacts[best]
    assert artifact.uri == f"katib://namespaces/default/experiments/told/trials/{best}"
    assert float(artifact.custom_properties["loss"].string_value) == 0
    lineage: Any = lineage_pb2_grpc.LineageServiceStub(metadata.channel)
    history = lineage.QueryLineage(lineage_pb2.QueryLineageRequest(uri=artifact.uri), timeout=10)
    assert {(node.kind, node.name) for node in history.nodes} == {
        ("artifact", f"default/told/{best}"),
        ("execution", f"default/told/{best}"),
        ("context", "default/told"),
    }


def test_what_is_refused_does_not_hold_up_the_rest(metadata: Metadata, katib: ServiceProcess) -> None:
    """ML Metadata cannot store a text that begins like this; a trial's parameter may."""
    metadata.up()
    client = Client(katib)
    space = [{"name": "x", "parameterType": "categorical", "feasibleSpace": {"list": ["mlmd-struct::", "1", "2"]}}]
    client.create(manifest("refused", "print('loss = 1')", parameters=space, maxTrialCount=3))
    client.wait("refused")
    found = metadata.wait("refused", 2)
    values = {node.custom_properties["parameter/x"].string_value for node in found.executions.values()}
    assert values == {"1", "2"}
    deadline = time.monotonic() + 20
    while "lineage of experiment" not in katib.log_path.read_text():  # the refused one may be sent after the others
        assert time.monotonic() < deadline, katib.log_path.read_text()
        time.sleep(0.05)


def test_kill_9_again_and_again(tmp_path: Path, metadata: Metadata, katib: ServiceProcess) -> None:
    """No trial is lost, none that had succeeded is run again, nothing is reported or told twice."""
    metadata.up()
    starts = tmp_path / "starts"
    starts.mkdir()
    code = (
        "import os, pathlib, sys, time\n"
        f"with pathlib.Path({str(starts)!r}, os.environ['MLMESH_TRIAL_NAME']).open('a') as file: file.write('x')\n"
        "time.sleep(0.2)\n"
        "print('loss =', float(sys.argv[1]))\n"
    )
    Client(katib).create(manifest("killed", code, maxTrialCount=8, maxFailedTrialCount=0))
    done: dict[str, Any] = {}
    for life in (1, 2):
        client = Client(katib)
        wait_until(lambda life=life, client=client: (client.get("killed").status.trials_succeeded >= 2 * life) or None)
        for trial in client.trials("killed"):
            if "Succeeded" in held(trial.conditions):
                assert done.setdefault(trial.name, trial) == trial
        client.channel.close()
        katib.kill()
        katib.start()
    client = Client(katib)
    found = client.wait("killed")
    trials = client.trials("killed")
    assert (found.status.trials, found.status.trials_succeeded) == (8, 8)
    assert "Succeeded" in held(found.status.conditions)
    assert len({assignments(trial)["x"] for trial in trials}) == 8
    for trial in trials:
        assert trial == done.get(trial.name, trial), "a trial that had ended is as it was"
        name = trial.name.rsplit("/", 1)[1]
        assert len((starts / name).read_text()) <= trial.attempts + 2  # started, and killed before that was written
        log = client.db.GetObservationLog(api_pb2.GetObservationLogRequest(trial_name=name)).observation_log
        assert [entry.metric.value for entry in log.metric_logs] == [trial.observation.metrics[0].latest]
    assert len(done) >= 4
    # Every start is accounted for, but for those (two ran at each kill) that were killed before they were written down.
    assert sum(len(file.read_text()) for file in starts.iterdir()) <= sum(trial.attempts for trial in trials) + 2 * 2
    check_whole(metadata.wait("killed", 8), trials)
    assert not [process for process in psutil.process_iter() if _is_in(process, katib.data_dir)]


def _is_in(process: psutil.Process, folder: Path) -> bool:
    """Trials are forked, so that their command line is the launcher's; their folder tells them apart."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(f"{folder}/")
    except psutil.Error:
        return False
