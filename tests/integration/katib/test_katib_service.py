"""The Katib service as a real process: experiments, Katib's own protocol, bad input, kill -9."""

import copy
import sys
import time
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2 as pb
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2_grpc

PARABOLA = "import sys; x = float(sys.argv[1]); print('loss =', (x - 3) ** 2)"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("katib")
    settings = {"PRELOAD": "", "MAX_RUNNING_TRIALS": "4", "MAX_TRIALS": "200"}
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", data_dir, settings) as process:
        yield process


def manifest(name: str, code: str = PARABOLA, **spec) -> dict:
    command = ["python", "-c", code, "${trialParameters.x}"]
    container = {"name": "main", "image": "python", "command": command}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state", "value": "1"}]},
            "maxTrialCount": 6,
            "parallelTrialCount": 2,
            "maxFailedTrialCount": 1,
            "parameters": [
                {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "5", "step": "0.5"}}
            ],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"containers": [container]}}},
                },
            },
            **spec,
        },
    }


class Client:
    def __init__(self, process: ServiceProcess) -> None:
        self.channel = grpc.insecure_channel(process.grpc)
        self.experiments = experiment_pb2_grpc.ExperimentServiceStub(self.channel)
        self.suggestion = api_pb2_grpc.SuggestionStub(self.channel)
        self.db = api_pb2_grpc.DBManagerStub(self.channel)

    def create(self, made: dict) -> pb.Experiment:
        request = pb.CreateExperimentRequest(parent="namespaces/default")
        json_format.ParseDict(made, request.manifest)
        return self.experiments.CreateExperiment(request)

    def get(self, name: str) -> pb.Experiment:
        return self.experiments.GetExperiment(pb.GetExperimentRequest(name=f"namespaces/default/experiments/{name}"))

    def trials(self, name: str) -> list[pb.Trial]:
        parent = f"namespaces/default/experiments/{name}"
        return list(self.experiments.ListTrials(pb.ListTrialsRequest(parent=parent)).trials)

    def wait(self, name: str, seconds: float = 60) -> pb.Experiment:
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(name)
            if {"Succeeded", "Failed"} & held(found.status.conditions):
                return found
            assert time.monotonic() < deadline, found.status
            time.sleep(0.05)


def held(conditions) -> set[str]:
    return {condition.type for condition in conditions if condition.status == "True"}


def assignments(trial: pb.Trial) -> dict[str, str]:
    return {item.name: item.value for item in trial.parameter_assignments}


@pytest.fixture(scope="module")
def client(service):
    return Client(service)


def test_an_experiment_finds_its_best_trial(client):
    client.create(manifest("parabola", maxTrialCount=11, algorithm={"algorithmName": "grid"}))
    found = client.wait("parabola")
    assert "Succeeded" in held(found.status.conditions)
    assert found.status.conditions[-1].reason == "ExperimentMaxTrialsReached"
    assert (found.status.trials, found.status.trials_succeeded) == (11, 11)
    best = found.status.current_optimal_trial
    assert {item.name: item.value for item in best.parameter_assignments} == {"x": "3.0"}
    assert float(best.observation.metrics[0].latest) == 0
    trials = client.trials("parabola")
    assert sorted(float(assignments(trial)["x"]) for trial in trials) == [i / 2 for i in range(11)]
    assert all(trial.attempts == 1 for trial in trials)


@pytest.mark.parametrize("algorithm", ["random", "bayesianoptimization"])
def test_every_algorithm_ends_an_experiment_without_repeating_a_trial(client, algorithm):
    name = f"algorithm-{algorithm[:6]}"
    settings = [{"name": "n_initial_points", "value": "3"}] if algorithm == "bayesianoptimization" else []
    chosen = {"algorithmName": algorithm, "algorithmSettings": settings}
    client.create(manifest(name, algorithm=chosen, maxTrialCount=6))
    assert "Succeeded" in held(client.wait(name).status.conditions)
    values = [assignments(trial)["x"] for trial in client.trials(name)]
    assert len(values) == len(set(values)) == 6


def test_the_goal_ends_it_early(client):
    objective = {"type": "minimize", "objectiveMetricName": "loss", "goal": 100}
    client.create(manifest("goal", objective=objective, parallelTrialCount=1))
    found = client.wait("goal")
    assert found.status.conditions[-1].reason == "ExperimentGoalReached"
    assert found.status.trials == 1


def test_an_exhausted_space_ends_it(client):
    space = [{"name": "x", "parameterType": "categorical", "feasibleSpace": {"list": ["1", "2", "3"]}}]
    client.create(manifest("exhausted", parameters=space, maxTrialCount=6))
    found = client.wait("exhausted")
    assert (found.status.trials, found.status.conditions[-1].reason) == (3, "ExperimentSuggestionEndReached")


@pytest.mark.parametrize(
    ("name", "code", "state"),
    [
        ("crash", "raise SystemExit(3)", "Failed"),
        ("silent", "print('nothing')", "MetricsUnavailable"),
        ("nan", "print('loss=nan')", "MetricsUnavailable"),
    ],
)
def test_trials_that_fail_make_it_fail(client, name, code, state):
    client.create(manifest(name, code))
    found = client.wait(name)
    assert "Failed" in held(found.status.conditions)
    assert found.status.conditions[-1].reason == "ExperimentMaxFailedTrialsReached"
    assert any(state in held(trial.conditions) for trial in client.trials(name))


def test_values_reach_the_trial_as_they_are(client):
    nasty = ["a'b", 'c"d', "$(touch pwned)", "é ☃", "${trialParameters.x}"]
    space = [{"name": "x", "parameterType": "categorical", "feasibleSpace": {"list": nasty}}]
    listed = repr(nasty).replace("${", "$' '{")  # the code itself must not look like a placeholder
    code = f"import sys; print('loss =', {listed}.index(sys.argv[1]))"
    client.create(manifest("nasty", code, parameters=space, maxTrialCount=5, maxFailedTrialCount=0))
    found = client.wait("nasty")
    assert "Succeeded" in held(found.status.conditions)
    assert {item.value for item in found.status.current_optimal_trial.parameter_assignments} == {"a'b"}


def test_a_trial_sees_a_small_environment(client, service):
    code = "import os; print('loss = 1'); print(sorted(os.environ))"
    client.create(manifest("environment", code, maxTrialCount=1, parallelTrialCount=1))
    client.wait("environment")
    url = f"{service.http}/katib/v1/namespaces/default/experiments/environment/trials/environment-1/log"
    text = httpx.get(url).text
    assert "MLMESH_TRIAL_NAME" in text and "MLMESH_KATIB_" not in text


def test_deleting_kills_the_trials(client, tmp_path):
    marker = f"marker-{time.time_ns()}"
    client.create(manifest("deleted", f"import time; time.sleep(600)  # {marker}"))
    wait_until(lambda: running_with(marker) or None)
    client.experiments.DeleteExperiment(pb.DeleteExperimentRequest(name="namespaces/default/experiments/deleted"))
    wait_until(lambda: not running_with(marker) or None)
    assert status_of(lambda: client.get("deleted"))[0] is grpc.StatusCode.NOT_FOUND


def running_with(marker: str) -> list[psutil.Process]:
    """Trials are forked, so that their command line is the launcher's; their folder tells them apart."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and "/deleted-" in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while (value := condition()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def status_of(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def path_of(made: dict, path: str):
    target = made
    *way, last = path.split(".")
    for key in way:
        target = target[int(key)] if isinstance(target, list) else target[key]
    return target, int(last) if isinstance(target, list) else last


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("kind", "Pod", "manifest.kind"),
        ("metadata.name", "Bad_Name", "manifest.metadata.name"),
        ("metadata.namespace", "other", "manifest.metadata.namespace"),
        ("spec.objective.type", "best", "manifest.spec.objective.type"),
        ("spec.objective.objectiveMetricName", "", "manifest.spec.objective.objectiveMetricName"),
        ("spec.algorithm.algorithmName", "magic", "unknown algorithm name magic"),
        ("spec.algorithm.algorithmSettings", [{"name": "x", "value": "1"}], "unknown setting x"),
        ("spec.maxTrialCount", 0, "manifest.spec.maxTrialCount"),
        ("spec.maxTrialCount", 100000, "manifest.spec.maxTrialCount"),
        ("spec.parallelTrialCount", 7, "manifest.spec.parallelTrialCount"),
        ("spec.parameters", [], "manifest.spec.parameters"),
        ("spec.parameters.0.feasibleSpace.min", "6", "manifest.spec.parameters[0].feasibleSpace.min"),
        ("spec.parameters.0.feasibleSpace.max", "abc", "manifest.spec.parameters[0].feasibleSpace.max"),
        ("spec.parameters.0.parameterType", "float", "manifest.spec.parameters[0].parameterType"),
        ("spec.trialTemplate.trialParameters", [], "manifest.spec.trialTemplate.trialParameters"),
        ("spec.trialTemplate.trialParameters.0.reference", "y", "trialParameters[0].reference"),
        ("spec.trialTemplate.primaryContainerName", "other", "'other'"),
        ("spec.trialTemplate.trialSpec.kind", "PyTorchJob", "Kubernetes backend"),
        ("spec.earlyStopping", {"algorithmName": "medianstop"}, "manifest.spec.earlyStopping"),
        ("spec.metricsCollectorSpec", {"source": {"filter": {"metricsFormat": ["("]}}}, "metricsFormat[0]"),
    ],
)
def test_bad_experiments_name_the_field_and_nothing_is_made(client, path, value, expected):
    made = copy.deepcopy(manifest("refused"))
    target, key = path_of(made, path)
    target[key] = value
    code, message = status_of(lambda: client.create(made))
    assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    assert expected in message
    assert status_of(lambda: client.get("refused"))[0] is grpc.StatusCode.NOT_FOUND


def test_a_name_is_given_once(client):
    client.create(manifest("twice"))
    assert status_of(lambda: client.create(manifest("twice")))[0] is grpc.StatusCode.ALREADY_EXISTS


def katib_experiment(algorithm: str, settings: dict[str, str], parameters: list[tuple]) -> api_pb2.Experiment:
    experiment = api_pb2.Experiment(name="stateless")
    spec = experiment.spec
    spec.algorithm.algorithm_name = algorithm
    for name, value in settings.items():
        spec.algorithm.algorithm_settings.add(name=name, value=value)
    spec.objective.type = api_pb2.MAXIMIZE
    spec.objective.objective_metric_name = "accuracy"
    for name, kind, space in parameters:
        spec.parameter_specs.parameters.add(
            name=name, parameter_type=kind, feasible_space=api_pb2.FeasibleSpace(**space)
        )
    return experiment


MIXED = [
    ("lr", api_pb2.DOUBLE, {"min": "0.001", "max": "1", "distribution": api_pb2.LOG_UNIFORM}),
    ("layers", api_pb2.INT, {"min": "1", "max": "5"}),
    ("size", api_pb2.DISCRETE, {"list": ["16", "32", "64"]}),
    ("optimizer", api_pb2.CATEGORICAL, {"list": ["sgd", "adam"]}),
]


@pytest.mark.parametrize("algorithm", ["random", "bayesianoptimization"])
def test_katib_controllers_get_as_many_feasible_suggestions_as_they_ask_for(client, algorithm):
    experiment = katib_experiment(algorithm, {"random_state": "10"}, MIXED)
    request = api_pb2.GetSuggestionsRequest(experiment=experiment, current_request_number=2)
    for number in range(12):
        trial = request.trials.add(name=f"t{number}")
        values = {"lr": str(0.001 * 1.5**number), "layers": str(1 + number % 5), "size": "32", "optimizer": "adam"}
        for name, value in values.items():
            trial.spec.parameter_assignments.assignments.add(name=name, value=value)
        trial.status.condition = api_pb2.TrialStatus.SUCCEEDED
        trial.status.observation.metrics.add(name="accuracy", value=str(0.5 + number / 100))
    replies = [client.suggestion.GetSuggestions(request) for _ in range(2)]
    assert replies[0] == replies[1]  # with random_state, the same question has the same answer
    points = [{a.name: a.value for a in p.assignments} for p in replies[0].parameter_assignments]
    assert len(points) == 2 and points[0] != points[1]
    for point in points:
        assert 0.001 <= float(point["lr"]) <= 1
        assert point["layers"] in {"1", "2", "3", "4", "5"}
        assert point["size"] in {"16", "32", "64"} and point["optimizer"] in {"sgd", "adam"}


def test_katib_controllers_walk_the_grid(client):
    parameters = [("layers", api_pb2.INT, {"min": "1", "max": "3"}), ("o", api_pb2.CATEGORICAL, {"list": ["a", "b"]})]
    request = api_pb2.GetSuggestionsRequest(
        experiment=katib_experiment("grid", {}, parameters), current_request_number=4
    )
    seen = []
    for expected in (4, 2):
        reply = client.suggestion.GetSuggestions(request)
        assert len(reply.parameter_assignments) == expected
        for point in reply.parameter_assignments:
            seen.append(tuple(a.value for a in point.assignments))
            trial = request.trials.add()
            trial.spec.parameter_assignments.assignments.extend(point.assignments)
    assert len(set(seen)) == 6
    code, message = status_of(lambda: client.suggestion.GetSuggestions(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION and "exhausted" in message


@pytest.mark.parametrize(
    ("algorithm", "settings", "expected"),
    [
        ("unknown", {}, "unknown algorithm name unknown"),
        ("bayesianoptimization", {"base_estimator": "SVM"}, "base_estimator"),
        ("bayesianoptimization", {"n_initial_points": "0"}, "n_initial_points"),
        ("bayesianoptimization", {"acq_func": "x"}, "acq_func"),
        ("random", {"random_state": "-1"}, "random_state"),
        ("random", {"x": "1"}, "unknown setting x"),
        ("grid", {}, "step is nil"),
    ],
)
def test_katib_controllers_are_told_what_is_wrong_with_settings(client, algorithm, settings, expected):
    request = api_pb2.ValidateAlgorithmSettingsRequest(experiment=katib_experiment(algorithm, settings, MIXED))
    code, message = status_of(lambda: client.suggestion.ValidateAlgorithmSettings(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and expected in message


def test_observation_logs_are_kept_by_time(client):
    report = api_pb2.ReportObservationLogRequest(trial_name="outside")
    for minute, value in ((2, "0.9"), (1, "0.8")):
        metric = api_pb2.Metric(name="accuracy", value=value)
        report.observation_log.metric_logs.add(time_stamp=f"2026-01-01T00:0{minute}:00Z", metric=metric)
    client.db.ReportObservationLog(report)
    reply = client.db.GetObservationLog(api_pb2.GetObservationLogRequest(trial_name="outside"))
    assert [log.metric.value for log in reply.observation_log.metric_logs] == ["0.8", "0.9"]
    late = api_pb2.GetObservationLogRequest(trial_name="outside", start_time="2026-01-01T01:01:30+01:00")
    assert [log.metric.value for log in client.db.GetObservationLog(late).observation_log.metric_logs] == ["0.9"]
    client.db.DeleteObservationLog(api_pb2.DeleteObservationLogRequest(trial_name="outside"))
    gone = client.db.GetObservationLog(api_pb2.GetObservationLogRequest(trial_name="outside"))
    assert not gone.observation_log.metric_logs
    report.observation_log.metric_logs[0].time_stamp = "yesterday"
    code, message = status_of(lambda: client.db.ReportObservationLog(report))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "metric_logs[0].time_stamp" in message


def test_what_is_not_served_says_so(client):
    stub = api_pb2_grpc.EarlyStoppingStub(client.channel)
    code, _ = status_of(lambda: stub.GetEarlyStoppingRules(api_pb2.GetEarlyStoppingRulesRequest()))
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_kill_9_in_mid_experiment_loses_and_repeats_no_trial(tmp_path: Path):
    counted = tmp_path / "starts"
    counted.mkdir()
    code = (
        "import os, pathlib, sys, time\n"
        f"mark = pathlib.Path({str(counted)!r}, os.environ['MLMESH_TRIAL_NAME'])\n"
        "with mark.open('a') as file: file.write('x')\n"
        "time.sleep(0.3)\n"
        "print('loss =', (float(sys.argv[1]) - 3) ** 2)\n"
    )
    process = ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path, {"PRELOAD": "", "LEASE_SECONDS": "2"})
    with process:
        Client(process).create(manifest("killed", code, maxTrialCount=8, maxFailedTrialCount=0))
        wait_until(lambda: len(list(counted.iterdir())) >= 3 or None)
        before = {t.name: assignments(t) for t in Client(process).trials("killed")}
        process.kill()
        process.start()
        client = Client(process)
        found = client.wait("killed")
        trials = client.trials("killed")
    assert "Succeeded" in held(found.status.conditions)
    assert (found.status.trials, found.status.trials_succeeded) == (8, 8)
    for trial in trials:
        starts = len((counted / trial.name.rsplit("/", 1)[-1]).read_text())
        assert starts <= trial.attempts <= 2, trial.name
        assert before.get(trial.name, assignments(trial)) == assignments(trial)
    assert sum(trial.attempts == 2 for trial in trials) <= 2  # those that ran when it was killed
    assert sys.platform != "linux" or not running_with("killed")
