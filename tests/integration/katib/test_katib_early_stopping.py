"""Early stopping: Katib's protocol, and trials of our own that are stopped."""

import grpc
import pytest
from integration.katib.client import Client, assignments, held, manifest, wait_until
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

SPACE = [{"name": "x", "parameterType": "int", "feasibleSpace": {"min": "0", "max": "3"}}]
EPOCHS = """
import sys, time
x = int(sys.argv[1])
for epoch in range(3):
    print(f"loss={x}", flush=True)
if x == 3:
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def stopping(client):
    return api_pb2_grpc.EarlyStoppingStub(client.channel)


def spec(name: str = "medianstop", **settings: str) -> api_pb2.EarlyStoppingSpec:
    made = api_pb2.EarlyStoppingSpec(algorithm_name=name)
    for key, value in settings.items():
        made.algorithm_settings.add(name=key, value=value)
    return made


def test_a_trial_that_is_worse_than_the_median_is_stopped(client):
    rule = {"algorithmName": "medianstop", "algorithmSettings": [{"name": "start_step", "value": "2"}]}
    made = manifest("median", EPOCHS, parameters=SPACE, algorithm={"algorithmName": "grid"}, earlyStopping=rule)
    client.create(made | {"spec": {**made["spec"], "maxTrialCount": 4, "parallelTrialCount": 1}})
    found = client.wait("median")
    assert (found.status.trials_succeeded, found.status.trials_early_stopped) == (3, 1)
    last = client.trials("median")[-1]
    assert assignments(last) == {"x": "3"} and "EarlyStopped" in held(last.conditions)
    assert [metric.min for metric in last.observation.metrics] == ["3"]
    assert found.status.current_optimal_trial.best_trial_name == "median-1"


def test_a_collector_beside_the_trial_stops_it(client, stopping):
    sleeper = "import time; print('loss=1', flush=True); time.sleep(600)"
    client.create(manifest("told", sleeper, parameters=SPACE, maxTrialCount=1, parallelTrialCount=1))
    wait_until(lambda: True if [t for t in client.trials("told") if "Running" in held(t.conditions)] else None)
    stopping.SetTrialStatus(api_pb2.SetTrialStatusRequest(trial_name="told-1"))
    client.wait("told")
    assert "EarlyStopped" in held(client.trials("told")[0].conditions)
    with pytest.raises(grpc.RpcError) as caught:
        stopping.SetTrialStatus(api_pb2.SetTrialStatusRequest(trial_name="told-1"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND and "told-1" in caught.value.details()


def test_a_trial_is_stopped_by_a_replica_that_does_not_run_it(tmp_path):
    sleeper = "import time; print('loss=1', flush=True); time.sleep(600)"
    settings = {"PRELOAD": "", "DATABASE_URL": f"sqlite:///{tmp_path / 'shared.db'}"}
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path / "one", settings) as one:
        runner = Client(one)
        runner.create(manifest("far", sleeper, parameters=SPACE, maxTrialCount=1, parallelTrialCount=1))
        wait_until(lambda: True if [t for t in runner.trials("far") if "Running" in held(t.conditions)] else None)
        with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path / "two", settings) as two:
            asked = Client(two)
            stub = api_pb2_grpc.EarlyStoppingStub(asked.channel)
            assert list(asked.get("far").status.running_trial_list) == ["far-1"]
            with pytest.raises(grpc.RpcError) as caught:
                stub.SetTrialStatus(api_pb2.SetTrialStatusRequest(trial_name="far-2"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            stub.SetTrialStatus(api_pb2.SetTrialStatusRequest(trial_name="far-1"))
            stub.SetTrialStatus(api_pb2.SetTrialStatusRequest(trial_name="far-1"))  # or its stop is on its way
            status = asked.wait("far").status
    assert (list(status.running_trial_list), list(status.early_stopped_trial_list)) == ([], ["far-1"])


def rules(client, stopping, kind, name: str, reported: list[list[str]], **settings: str):
    request = api_pb2.GetEarlyStoppingRulesRequest()
    request.experiment.spec.objective.objective_metric_name = "accuracy"
    request.experiment.spec.objective.type = kind
    request.experiment.spec.early_stopping.CopyFrom(spec(**settings))
    for number, values in enumerate(reported):
        trial = request.trials.add(name=f"{name}-{number}")
        trial.status.condition = api_pb2.TrialStatus.SUCCEEDED
        report = api_pb2.ReportObservationLogRequest(trial_name=trial.name)
        for minute, value in enumerate(values):
            metric = api_pb2.Metric(name="accuracy", value=value)
            report.observation_log.metric_logs.add(time_stamp=f"2026-01-01T00:{minute:02}:00Z", metric=metric)
        client.db.ReportObservationLog(report)
    request.trials.add(name="runs").status.condition = api_pb2.TrialStatus.RUNNING
    return stopping.GetEarlyStoppingRules(request).early_stopping_rules


@pytest.mark.parametrize(
    ("kind", "comparison"), [(api_pb2.MAXIMIZE, api_pb2.LESS), (api_pb2.MINIMIZE, api_pb2.GREATER)]
)
def test_katib_controllers_are_given_the_median_of_the_first_reports(client, stopping, kind, comparison):
    reported = [["0.1", "0.3", "9"], ["0.4", "0.4", "9"], ["0.8", "0.8"], ["0.9", "nan", "0.9"]]
    found = rules(client, stopping, kind, f"first-{kind}", reported, start_step="2")
    assert [(rule.name, rule.comparison, rule.start_step) for rule in found] == [("accuracy", comparison, 2)]
    assert float(found[0].value) == pytest.approx(0.6)


def test_there_is_no_rule_before_enough_trials_succeeded(client, stopping):
    assert not rules(client, stopping, api_pb2.MAXIMIZE, "few", [["0.1"], ["0.4"]])
    assert len(rules(client, stopping, api_pb2.MAXIMIZE, "few", [["0.1"], ["0.4"]], min_trials_required="2")) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (spec("means"), "unknown algorithm name means"),
        (spec(min_trials_required="0"), "min_trials_required must be greater than zero (>0)"),
        (spec(start_step="0"), "start_step must be greater or equal than one (>=1)"),
        (spec(start_step="0.5"), "failed to validate start_step(0.5): must be a whole number"),
        (spec(patience="3"), "unknown setting patience for algorithm medianstop"),
    ],
)
def test_bad_settings_are_told(client, stopping, given, expected):
    with pytest.raises(grpc.RpcError) as caught:
        stopping.ValidateEarlyStoppingSettings(api_pb2.ValidateEarlyStoppingSettingsRequest(early_stopping=given))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and caught.value.details() == expected


def test_good_settings_are_taken(stopping):
    given = spec(min_trials_required="1", start_step="1")
    stopping.ValidateEarlyStoppingSettings(api_pb2.ValidateEarlyStoppingSettingsRequest(early_stopping=given))


def test_katib_controllers_get_labels_and_early_stopped_trials_count(client):
    request = api_pb2.GetSuggestionsRequest(current_request_number=2)
    experiment = request.experiment.spec
    experiment.algorithm.algorithm_name = "cmaes"
    experiment.algorithm.algorithm_settings.add(name="random_state", value="3")
    experiment.objective.type, experiment.objective.objective_metric_name = api_pb2.MINIMIZE, "loss"
    for name in ("x", "y"):
        space = api_pb2.FeasibleSpace(min="0", max="1")
        experiment.parameter_specs.parameters.add(name=name, parameter_type=api_pb2.DOUBLE, feasible_space=space)
    generations = set()
    for number in range(4):
        reply = client.suggestion.GetSuggestions(request)
        for index, suggested in enumerate(reply.parameter_assignments):
            generations.add(suggested.labels["mlmesh.cmaes/generation"])
            trial = request.trials.add(name=f"t-{number}-{index}")
            trial.spec.labels.update(suggested.labels)
            trial.spec.parameter_assignments.assignments.extend(suggested.assignments)
            trial.status.condition = api_pb2.TrialStatus.EARLYSTOPPED
            trial.status.observation.metrics.add(name="loss", value=suggested.assignments[0].value)
    assert generations == {"0", "1"}
