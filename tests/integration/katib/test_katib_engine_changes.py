"""Experiments that are changed, paused, stopped early and killed while they run."""

import grpc
import pytest
from google.protobuf import json_format
from integration.katib.client import PARABOLA, Client, assignments, held, manifest, wait_until
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2 as pb

SLOW = "import sys, time; time.sleep(0.2); " + PARABOLA.removeprefix("import sys; ")
SPACE = [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "5"}}]


def name_of(experiment: str) -> str:
    return f"namespaces/default/experiments/{experiment}"


def update(client: Client, experiment: str, spec: dict, *paths: str) -> pb.Experiment:
    request = pb.UpdateExperimentRequest(experiment=pb.Experiment(name=name_of(experiment)))
    json_format.ParseDict({"spec": spec}, request.experiment.manifest)
    request.update_mask.paths.extend(paths)
    return client.experiments.UpdateExperiment(request)


def refused(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(("policy", "goes_on"), [("LongRunning", True), ("FromVolume", True), ("Never", False)])
def test_a_raised_budget_goes_on_with_what_has_ended(client, policy, goes_on):
    name = f"raised-{policy.lower()}"
    client.create(manifest(name, parameters=SPACE, maxTrialCount=2, resumePolicy=policy))
    client.wait(name)
    before = client.trials(name)
    if not goes_on:
        error = refused(lambda: update(client, name, {"maxTrialCount": 4}))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION and "resumePolicy" in error.details()
        return
    assert refused(lambda: update(client, name, {"maxTrialCount": 1, "parallelTrialCount": 1})).code() is (
        grpc.StatusCode.INVALID_ARGUMENT
    )
    update(client, name, {"maxTrialCount": 4})
    assert client.wait(name).status.trials_succeeded == 4
    assert client.trials(name)[:2] == before


def test_only_the_budget_and_the_goal_change(client):
    client.create(manifest("fixed", SLOW, parameters=SPACE, maxTrialCount=50, maxFailedTrialCount=50))
    error = refused(lambda: update(client, "fixed", {"algorithm": {"algorithmName": "grid"}}))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "spec.algorithm.algorithmName" in error.details()
    changed = update(client, "fixed", {"objective": {"goal": 100}}, "manifest.spec.objective.goal")
    assert changed.manifest["spec"]["objective"]["goal"] == 100
    assert client.wait("fixed").status.conditions[-1].reason == "ExperimentGoalReached"


def test_a_paused_experiment_starts_no_more_trials(client):
    client.create(manifest("paused", SLOW, parameters=SPACE, maxTrialCount=6))
    wait_until(lambda: client.get("paused").status.trials_succeeded or None)
    paused = client.experiments.PauseExperiment(pb.PauseExperimentRequest(name=name_of("paused")))
    assert paused.status.paused
    wait_until(lambda: client.get("paused").status.trials_running == 0 or None)
    made = client.get("paused").status
    assert made.trials < 6 and not {"Succeeded", "Failed"} & held(made.conditions)
    client.experiments.ResumeExperiment(pb.ResumeExperimentRequest(name=name_of("paused")))
    assert client.wait("paused").status.trials_succeeded == 6


def test_reports_are_read_while_the_trial_runs(client):
    code = "import time; print('loss = 3', flush=True); print('loss = 2', flush=True); time.sleep(60)"
    client.create(manifest("talks", code, maxTrialCount=1, parallelTrialCount=1))
    parent = name_of("talks") + "/trials/talks-1"

    def reports(after: int = 0, size: int = 0) -> pb.ListObservationsResponse:
        request = pb.ListObservationsRequest(parent=parent, after=after, page_size=size)
        return client.experiments.ListObservations(request)

    def both() -> list[pb.MetricReport] | None:
        try:
            found = reports().reports
        except grpc.RpcError:
            return None  # the trial is not made yet
        return list(found) if len(found) == 2 else None

    first, second = wait_until(both)
    assert [(r.metric, r.value) for r in (first, second)] == [("loss", "3"), ("loss", "2")]
    assert reports(size=1).next_position == first.position
    assert [r.value for r in reports(after=first.position).reports] == ["2"]
    assert client.get("talks").status.trials_running == 1
    client.experiments.DeleteExperiment(pb.DeleteExperimentRequest(name=name_of("talks")))


def test_a_killed_service_goes_on_as_if_it_had_not_been(client, tmp_path):
    made = manifest("killed", SLOW, parameters=SPACE, maxTrialCount=6, parallelTrialCount=2)
    client.create(made)
    client.wait("killed")
    whole = [assignments(trial) for trial in client.trials("killed")]
    settings = {"PRELOAD": "", "LEASE_SECONDS": "2"}
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path, settings) as process:
        client = Client(process)
        client.create(made)
        ended = wait_until(lambda: [t for t in client.trials("killed") if "Succeeded" in held(t.conditions)] or None)
        process.kill()
        process.start()
        client = Client(process)
        assert client.wait("killed").status.trials_succeeded == 6
        trials = client.trials("killed")
    assert [assignments(trial) for trial in trials] == whole
    assert [trial for trial in trials if trial.name in {t.name for t in ended}] == ended
    assert sum(trial.attempts for trial in trials) <= 8
