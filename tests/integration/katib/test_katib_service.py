"""The Katib service as a real process: experiments, Katib's own protocol, bad input."""

import copy
import time

import grpc
import httpx
import psutil
import pytest
from google.protobuf import json_format
from integration.katib.client import assignments, held, manifest, wait_until
from mlmesh_kit.paging import encode_page_token
from mlmesh_protos.api.v1.beta1 import api_pb2
from mlmesh_protos.mlmesh.katib.v1 import experiment_pb2 as pb


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
    assert "MLMESH_TRIAL_NAME" in text and "KATIB_TRIAL_NAME" in text and "MLMESH_KATIB_" not in text


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
        ("spec.earlyStopping", {"algorithmName": "means"}, "manifest.spec.earlyStopping.algorithmName"),
        ("spec.metricsCollectorSpec", {"source": {"filter": {"metricsFormat": ["("]}}}, "metricsFormat[0]"),
        ("metadata.namespace", [], "manifest.metadata.namespace"),
        ("spec.objective.type", {}, "manifest.spec.objective.type"),
        ("spec.parameters.0.name", "x" * 201, "manifest.spec.parameters[0].name"),
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


def test_numbers_that_json_has_not_are_refused(client):
    request = pb.CreateExperimentRequest(parent="namespaces/default")
    json_format.ParseDict(manifest("refused"), request.manifest)
    request.manifest["spec"]["maxTrialCount"] = float("nan")
    code, message = status_of(lambda: client.experiments.CreateExperiment(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and message.startswith("manifest:")


@pytest.mark.parametrize("position", ["x", [1], {"a": 1}, 10**30, -1, True, None])
def test_tokens_that_a_client_made_up(client, position):
    client.get("parabola")  # there is something to list
    parents = ["namespaces/default", "namespaces/default/experiments/parabola"]
    tokens = [encode_page_token(position, "default"), encode_page_token(position, parents[1])]
    experiments = pb.ListExperimentsRequest(parent=parents[0], page_token=tokens[0])
    trials = pb.ListTrialsRequest(parent=parents[1], page_token=tokens[1])
    for call in (
        lambda: client.experiments.ListExperiments(experiments),
        lambda: client.experiments.ListTrials(trials),
    ):
        code, message = status_of(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT and "page_token" in message


def test_pages_of_trials_and_experiments(client):
    parent = "namespaces/default/experiments/parabola"
    sizes, token = [], ""
    while token or not sizes:
        reply = client.experiments.ListTrials(pb.ListTrialsRequest(parent=parent, page_size=4, page_token=token))
        sizes.append([trial.name.rsplit("-", 1)[1] for trial in reply.trials])
        token = reply.next_page_token
    assert sizes == [["1", "2", "3", "4"], ["5", "6", "7", "8"], ["9", "10", "11"]]
    listed = client.experiments.ListExperiments(pb.ListExperimentsRequest(parent="namespaces/default"))
    assert next(experiment for experiment in listed.experiments if experiment.name == parent) == client.get("parabola")
    paged, token = [], ""
    while token or not paged:
        request = pb.ListExperimentsRequest(parent="namespaces/default", page_size=2, page_token=token)
        reply = client.experiments.ListExperiments(request)
        paged += [experiment.name for experiment in reply.experiments]
        token = reply.next_page_token
    assert paged == [experiment.name for experiment in listed.experiments]


def test_the_log_of_a_trial_that_goes_on_printing(client, service):
    code = "import time\nprint('x' * 2_000_000)\nwhile True: print('y' * 999, flush=True); time.sleep(0.0005)"
    client.create(manifest("talkative", code, maxTrialCount=1, parallelTrialCount=1))
    url = f"{service.http}/katib/v1/namespaces/default/experiments/talkative/trials/talkative-1/log"
    wait_until(lambda: len(httpx.get(url).content) > 2_000_000 or None)
    lengths = [len(httpx.get(url, timeout=20).content) for _ in range(5)]  # httpx raises where an answer is cut off
    assert lengths == sorted(lengths) and lengths[-1] > lengths[0]
    client.experiments.DeleteExperiment(pb.DeleteExperimentRequest(name="namespaces/default/experiments/talkative"))


def test_a_log_that_is_followed_ends_when_its_experiment_is_deleted(client, service):
    code = "import time; time.sleep(600)"
    client.create(manifest("quiet", code, maxTrialCount=1, parallelTrialCount=1))
    wait_until(lambda: client.trials("quiet") or None)
    url = f"{service.http}/katib/v1/namespaces/default/experiments/quiet/trials/quiet-1/log"
    with httpx.stream("GET", url, params={"follow": "true"}, timeout=20) as following:
        assert following.status_code == 200  # though it has printed nothing yet
        client.experiments.DeleteExperiment(pb.DeleteExperimentRequest(name="namespaces/default/experiments/quiet"))
        assert following.read() == b""


def test_an_expression_that_never_ends_stops_nobody(client):
    collector = {"source": {"filter": {"metricsFormat": [r"((?:\w|\w)+)!=(\d)"]}}}
    made = manifest("endless", "print('loss' + 's' * 60)", metricsCollectorSpec=collector, maxTrialCount=1)
    client.create({**made, "spec": {**made["spec"], "parallelTrialCount": 1, "maxFailedTrialCount": 0}})
    slowest, ended = 0.0, False
    while not ended:
        began = time.monotonic()
        ended = bool({"Succeeded", "Failed"} & held(client.get("endless").status.conditions))
        slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1.5, "the service does not answer while it matches"
        time.sleep(0.05)
    (trial,) = client.trials("endless")
    assert trial.conditions[-1].type == "MetricsUnavailable"
    assert "no number as loss" in trial.conditions[-1].message


def test_a_report_without_a_name_is_none(client):
    collector = {"source": {"filter": {"metricsFormat": [r"(loss)?=(\d+)"]}}}
    client.create(manifest("nameless", "print('loss x =5')", metricsCollectorSpec=collector, maxFailedTrialCount=0))
    found = client.wait("nameless")
    assert found.status.conditions[-1].reason == "ExperimentMaxFailedTrialsReached"


def test_a_command_that_does_not_exist_fails_the_trial(client):
    made = manifest("no-command", maxFailedTrialCount=0)
    target, key = path_of(made, "spec.trialTemplate.trialSpec.spec.template.spec.containers.0.command")
    target[key] = ["no-such-program"]
    client.create(made)
    assert "Failed" in held(client.wait("no-command").status.conditions)
    failed = [trial for trial in client.trials("no-command") if "Failed" in held(trial.conditions)]
    assert "127" in failed[0].conditions[-1].message


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
        ("bayesianoptimization", {"n_initial_points": "-1"}, "n_initial_points"),
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


def test_a_hundred_trials_that_do_nothing(client):
    """What the engine itself costs. Far above what was measured (docs/katib.md), for slow and shared machines."""
    space = [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "0", "max": "1"}}]
    made = manifest("hundred", "print('loss = 1')", parameters=space, maxTrialCount=100, parallelTrialCount=4)
    began = time.monotonic()
    client.create(made)
    found = client.wait("hundred")
    seconds = time.monotonic() - began
    print(f"100 trials: {seconds:.2f} s")
    assert found.status.trials_succeeded == 100
    assert seconds < 30
