"""Katib's protocol: requests as its controller sends them, to each algorithm and check, and Katib's codes and words."""

import json

import grpc
import pytest
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

OK, INVALID = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT
TRIALS = api_pb2.TrialStatus


def number(name: str, low: str, high: str, step: str = "", kind=api_pb2.DOUBLE, distribution=0):
    space = api_pb2.FeasibleSpace(min=low, max=high, step=step, distribution=distribution)
    return api_pb2.ParameterSpec(name=name, parameter_type=kind, feasible_space=space)


def listed(name: str, *values: str, kind=api_pb2.CATEGORICAL):
    return api_pb2.ParameterSpec(name=name, parameter_type=kind, feasible_space=api_pb2.FeasibleSpace(list=values))


def whole(name: str, low: str, high: str, step: str = "", distribution=0):
    return number(name, low, high, step, api_pb2.INT, distribution)


SMALL = [
    whole("units", "1", "5"),
    listed("kind", "cat1", "cat2", "cat3"),
    listed("size", "3", "2", "6", kind=api_pb2.DISCRETE),
    number("rate", "1", "5"),
]
EVERY = [
    *SMALL,
    *(
        number(f"double-{spread}-{step}", "5", "10", step, distribution=spread)
        for spread in range(5)
        for step in ("", "0.8")
    ),
    *(
        whole(f"int-{spread}-{step}", "5", "100", step, spread)
        for spread in range(5)
        for step in ("", "2", "0.8", "0.01")
    ),
]


def experiment(name: str, parameters=(), settings=None, **spec) -> api_pb2.Experiment:
    made = api_pb2.Experiment(name="test")
    made.spec.algorithm.algorithm_name = name
    for key, value in (settings or {}).items():
        made.spec.algorithm.algorithm_settings.add(name=key, value=value)
    made.spec.objective.type, made.spec.objective.goal = api_pb2.MAXIMIZE, 0.9
    made.spec.parameter_specs.parameters.extend(parameters)
    for key, value in spec.items():
        field = getattr(made.spec, key)
        if isinstance(field, int):
            setattr(made.spec, key, value)
        else:
            field.CopyFrom(value)
    return made


def trial(name: str, assignments, condition=TRIALS.SUCCEEDED, labels=None, **metrics) -> api_pb2.Trial:
    made = api_pb2.Trial(name=name)
    made.spec.objective.type, made.spec.objective.objective_metric_name = api_pb2.MAXIMIZE, "accuracy"
    for key, value in dict(assignments).items():
        made.spec.parameter_assignments.assignments.add(name=key, value=value)
    made.spec.labels.update(labels or {})
    made.status.condition = condition
    for key, value in metrics.items():
        made.status.observation.metrics.add(name=key, value=str(value))
    return made


def suggest(client, asked: api_pb2.Experiment, count: int, trials=(), total: int = 0) -> api_pb2.GetSuggestionsReply:
    request = api_pb2.GetSuggestionsRequest(
        experiment=asked, trials=trials, current_request_number=count, total_request_number=total
    )
    return client.suggestion.GetSuggestions(request)


def values(suggestion: api_pb2.GetSuggestionsReply.ParameterAssignments) -> dict[str, str]:
    return {item.name: item.value for item in suggestion.assignments}


def validate(client, asked: api_pb2.Experiment) -> tuple[grpc.StatusCode, str]:
    return told(
        lambda: client.suggestion.ValidateAlgorithmSettings(api_pb2.ValidateAlgorithmSettingsRequest(experiment=asked))
    )


def told(call) -> tuple[grpc.StatusCode, str]:
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return OK, ""


SEED = {"random_state": "10"}
SEARCHES = [
    ("random", SEED),
    ("sobol", {}),
    ("tpe", {"n_startup_trials": "20", "n_ei_candidates": "10", **SEED}),
    ("tpe", {"gamma": "0.25", "prior_weight": "1.0", "n_EI_candidates": "24", **SEED}),
    ("multivariate-tpe", {"n_startup_trials": "20", "n_ei_candidates": "10", **SEED}),
    ("cmaes", {"restart_strategy": "ipop", "sigma": "2", **SEED}),
    ("bayesianoptimization", {**SEED, "n_initial_points": "1"}),
]


@pytest.mark.parametrize(("name", "settings"), SEARCHES)
def test_every_kind_of_parameter_is_searched(client, name, settings):
    parameters = SMALL if name == "bayesianoptimization" else EVERY
    asked = experiment(name, parameters, settings)
    first = suggest(client, asked, 2)
    trials = [trial(f"t-{n}", values(s), accuracy=n, other=3) for n, s in enumerate(first.parameter_assignments)]
    second = suggest(client, asked, 2, trials, total=4)
    points = [values(s) for s in (*first.parameter_assignments, *second.parameter_assignments)]
    assert len({json.dumps(point) for point in points}) == 4
    for point in points:
        assert list(point) == [parameter.name for parameter in parameters]
        assert 1 <= int(point["units"]) <= 5 and 1 <= float(point["rate"]) <= 5
        assert point["kind"] in {"cat1", "cat2", "cat3"} and point["size"] in {"2", "3", "6"}
        assert all(float(point[name]).is_integer() for name in point if name.startswith("int"))


def test_each_trial_is_measured_by_its_own_objective(client):
    """The experiment of Katib's tests names no metric; whether more is better is the experiment's."""
    asked = experiment("tpe", [number("rate", "0", "1")], {"random_state": "1", "n_startup_trials": "2"})
    good = [trial(f"t-{n}", {"rate": str(n / 100)}, accuracy=n if n < 10 else 0) for n in range(40)]
    best = suggest(client, asked, 3, good)
    asked.spec.objective.type = api_pb2.MINIMIZE
    least = suggest(client, asked, 3, good)
    assert [values(s) for s in best.parameter_assignments] != [values(s) for s in least.parameter_assignments]


def test_trials_count_in_the_order_they_were_started(client):
    asked = experiment("enas", settings={"controller_learning_rate": "0.1", "random_state": "1"}, nas_config=nas())
    trials = [trial(f"t-{n}", {"architecture": f"[[{n}], [0, {n % 2}]]"}, accuracy=n) for n in range(4)]
    for minute, one in enumerate(trials):
        one.status.start_time = f"2026-01-01T00:0{minute}:00Z"
    assert suggest(client, asked, 3, trials) == suggest(client, asked, 3, trials[::-1])


def test_a_grid_is_walked_and_its_end_told(client):
    asked = experiment("grid", [whole("x", "1", "3"), listed("y", "a", "b")], max_trial_count=6)
    trials = []
    for _ in range(3):
        trials += [
            trial(f"t-{len(trials)}-{n}", values(suggestion), accuracy=1)
            for n, suggestion in enumerate(suggest(client, asked, 2, trials).parameter_assignments)
        ]
    assert len({json.dumps(values_of(one)) for one in trials}) == 6
    code, words = told(lambda: suggest(client, asked, 1, trials))
    assert code is grpc.StatusCode.FAILED_PRECONDITION and "exhausted" in words


def values_of(one: api_pb2.Trial) -> dict[str, str]:
    return {item.name: item.value for item in one.spec.parameter_assignments.assignments}


INTS = [whole("a", "1", "5"), whole("b", "9", "10")]
NO = "unknown setting invalid for algorithm "
BAYES = " is not supported in Bayesian optimization"
GREAT = "should be great or equal than zero"
PBT = {"suggestion_trial_dir": "/opt/katib/data", "n_population": "10", "truncation_threshold": "0.2"}
BAND = {"r_l": "9", "eta": "3", "resource_name": "epochs"}
EPOCHS = [whole("epochs", "3", "3"), number("rate", "0", "1")]


@pytest.mark.parametrize(
    ("name", "settings", "parameters", "spec", "words"),
    [
        ("invalid", {}, [], {}, "unknown algorithm name invalid"),
        ("tpe", {"n_startup_trials": "5", "n_ei_candidates": "24", **SEED}, [], {}, OK),
        ("tpe", {"gamma": "0.25", "prior_weight": "1.0", "n_EI_candidates": "24", **SEED}, [], {}, OK),
        ("tpe", {"invalid": "5"}, [], {}, f"{NO}tpe"),
        ("tpe", {"n_startup_trials": "-1"}, [], {}, f"n_startup_trials {GREAT}"),
        ("tpe", {"n_ei_candidate": "-1"}, [], {}, "unknown setting n_ei_candidate for algorithm tpe"),
        ("tpe", {"random_state": "-1"}, [], {}, f"random_state {GREAT}"),
        ("tpe", {"gamma": "1.5"}, [], {}, "gamma should be in the range of (0, 1)"),
        ("tpe", {"n_EI_candidates": "0"}, [], {}, "n_EI_candidates should be great than zero"),
        ("tpe", {"prior_weight": "aaa"}, [], {}, "failed to validate prior_weight(aaa)..."),
        ("multivariate-tpe", {"n_startup_trials": "5", "n_ei_candidates": "24", **SEED}, [], {}, OK),
        ("multivariate-tpe", {"invalid": "5"}, [], {}, f"{NO}multivariate-tpe"),
        ("cmaes", {"restart_strategy": "ipop", "sigma": "0.1", **SEED}, INTS, {}, OK),
        ("cmaes", {"restart_strategy": "None"}, INTS, {}, OK),
        ("cmaes", {"invalid": "invalid", "sigma": "0.1"}, INTS, {}, f"{NO}cmaes"),
        ("cmaes", {"restart_strategy": "invalid"}, INTS, {}, "restart_strategy invalid is not supported..."),
        ("cmaes", {"restart_strategy": "None", "sigma": "-10"}, INTS, {}, "sigma should be great..."),
        ("cmaes", {"sigma": "0.2", "random_state": "-20"}, INTS, {}, f"random_state {GREAT}"),
        ("cmaes", {"sigma": "0.2"}, INTS[:1], {}, "cmaes only supports two or more..."),
        ("random", SEED, INTS, {"max_trial_count": 23}, OK),
        ("random", {"invalid": "invalid"}, [], {}, f"{NO}random"),
        ("random", {"random_state": "-1"}, [], {}, f"random_state {GREAT}"),
        ("sobol", {}, [], {}, OK),
        ("grid", SEED, INTS[:1], {"max_trial_count": 5}, OK),
        ("grid", {"invalid": "invalid"}, [], {}, f"{NO}grid"),
        ("grid", {"random_state": "-1"}, [], {}, f"random_state {GREAT}"),
        ("grid", SEED, [number("x", "1", "5")], {}, "Param: x step is nil..."),
        (
            "grid",
            SEED,
            [INTS[0], number("x", "1", "5", "1")],
            {"max_trial_count": 26},
            "Max Trial Count: 26 > all possible search combinations: 25",
        ),
        ("bayesianoptimization", SEED, [], {}, OK),
        ("bayesianoptimization", {"base_estimator": "GBRT"}, [], {}, OK),
        ("bayesianoptimization", {"invalid": "1"}, [], {}, f"{NO}bayesianoptimization"),
        ("bayesianoptimization", {"base_estimator": "x"}, [], {}, "base_estimator x" + BAYES),
        ("bayesianoptimization", {"n_initial_points": "-1"}, [], {}, f"n_initial_points {GREAT}"),
        ("bayesianoptimization", {"acq_func": "x"}, [], {}, "acq_func x" + BAYES),
        ("bayesianoptimization", {"acq_optimizer": "x"}, [], {}, "acq_optimizer x" + BAYES),
        ("bayesianoptimization", {"random_state": "-1"}, [], {}, f"random_state {GREAT}"),
        ("hyperband", BAND, EPOCHS, {"parallel_trial_count": 9}, OK),
        ("hyperband", BAND, EPOCHS, {"parallel_trial_count": 8}, "parallelTrialCount must be not less than 9."),
        ("hyperband", BAND, EPOCHS, {}, "parallelTrialCount must be not less than 9."),
        ("hyperband", {"r_l": "9"}, EPOCHS, {}, "r_l and resource_name must be set."),
        ("hyperband", {**BAND, "r_l": "x"}, EPOCHS, {}, "r_l must be a positive float number..."),
        ("hyperband", {**BAND, "r_l": "-1"}, EPOCHS, {}, "r_l must be a positive float number..."),
        (
            "hyperband",
            {**BAND, "resource_name": "steps"},
            EPOCHS,
            {"parallel_trial_count": 9},
            "value of resource_name setting must be in parameters.",
        ),
        ("pbt", PBT, [], {}, OK),
        ("pbt", {**PBT, "resample_probability": "0.5"}, [], {}, OK),
        ("pbt", {**PBT, "resample_probability": "1.5"}, [], {}, "Param(resample_probability) should be null..."),
        ("pbt", {"n_population": "10"}, [], {}, "Required params missing: suggestion_trial_dir, truncation_threshold"),
        ("pbt", {**PBT, "n_population": "4"}, [], {}, "Param(n_population) should be >= 5"),
        ("pbt", {**PBT, "n_population": "x"}, [], {}, "failed to validate n_population(x)..."),
        ("pbt", {**PBT, "truncation_threshold": "1.1"}, [], {}, "Param(truncation_threshold) should be between..."),
        ("random", {}, [number("x", "2", "1")], {}, "experiment.spec.parameter_specs.parameters[0].feasible..."),
    ],
)
def test_settings_are_checked_in_katibs_words(client, name, settings, parameters, spec, words):
    code, details = validate(client, experiment(name, parameters, settings, **spec))
    if words is OK:
        assert (code, details) == (OK, "")
    elif words.endswith("..."):
        assert code is INVALID and details.startswith(words.removesuffix("..."))
    else:
        assert (code, details) == (INVALID, words)


def nas(operations=None, layers: int = 2, inputs=(32, 32, 3), outputs=(10,)) -> api_pb2.NasConfig:
    made = api_pb2.NasConfig()
    made.graph_config.num_layers = layers
    made.graph_config.input_sizes.extend(inputs)
    made.graph_config.output_sizes.extend(outputs)
    convolution = operation("convolution", listed("filter_size", "3", "5"), whole("stride", "1", "2", "1"))
    made.operations.operation.extend([convolution] if operations is None else operations)
    return made


def operation(kind: str, *parameters: api_pb2.ParameterSpec) -> api_pb2.Operation:
    specs = api_pb2.Operation.ParameterSpecs(parameters=parameters)
    return api_pb2.Operation(operation_type=kind, parameter_specs=specs)


@pytest.mark.parametrize("name", ["darts", "enas"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (operation("c", listed("s", "3"), whole("p", "3", "2", "1"), number("d", "3.0", "1.0", "0.1")), ""),
        (operation("", listed("s", "3")), "Missing operationType in Operation"),
        (operation("c"), "Missing ParameterConfigs in Operation"),
        (operation("c", listed("", "3")), "Missing Name in ParameterConfig"),
        (operation("c", api_pb2.ParameterSpec(name="s")), "Missing ParameterType in ParameterConfig"),
        (operation("c", number("s", "2", "1", kind=api_pb2.CATEGORICAL)), "Missing List in ParameterConfig"),
        (operation("c", listed("p", "1", kind=api_pb2.INT)), "Missing Max and Min in ParameterConfig.feasibleSpace"),
        (operation("c", number("d", "3.0", "1.0")), "Step parameter should be > 0 in ParameterConfig.feasibleSpace"),
        (operation("c", number("d", "1", "x", "1")), "failed to validate ParameterConfig.feasibleSpace"),
    ],
)
def test_operations_are_checked_in_katibs_words(client, name, given, words):
    code, details = validate(client, experiment(name, nas_config=nas([given])))
    assert code is (INVALID if words else OK) and details.startswith(words)
    if not words:
        assert len(suggest(client, experiment(name, nas_config=nas([given])), 2).parameter_assignments) == 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (nas(inputs=()), "Missing InputSizes in GraphConfig"),
        (nas(outputs=()), "Missing OutputSizes in GraphConfig"),
        (nas(layers=0), "Missing NumLayers in GraphConfig"),
    ],
)
def test_graphs_of_enas_are_checked_in_katibs_words(client, config, words):
    assert validate(client, experiment("enas", nas_config=config)) == (INVALID, words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_epoch": "10", "w_lr": "0.01", "batch_size": "None", "num_workers": "0", "init_channels": "1"}, ""),
        ({"num_epochs": "0"}, "num_epochs should be greater than zero"),
        ({"w_lr": "-0.1"}, "w_lr should be greater than or equal to zero"),
        ({"alpha_weight_decay": "-0.02"}, "alpha_weight_decay should be greater than or equal to zero"),
        ({"w_momentum": "-0.8"}, "w_momentum should be greater than or equal to zero"),
        ({"batch_size": "0"}, "batch_size should be greater than or equal to one"),
        ({"print_step": "0"}, "print_step should be greater than or equal to one"),
        ({"num_nodes": "x"}, "failed to validate num_nodes(x): should be a whole number"),
    ],
)
def test_settings_of_darts_are_checked_in_katibs_words(client, settings, words):
    assert validate(client, experiment("darts", settings=settings)) == (INVALID if words else OK, words)


def test_darts_tells_its_trial_what_to_search(client):
    operations = [operation("separable_convolution", listed("filter_size", "3", "5"))]
    operations.append(operation("skip_connection", listed("filter_size", "3")))
    asked = experiment(
        "darts", settings={"num_epochs": "3", "batch_size": "None"}, nas_config=nas(operations, layers=3)
    )
    given = values(suggest(client, asked, 1).parameter_assignments[0])
    read = {name: json.loads(value.replace("'", '"')) for name, value in given.items()}
    assert read["num-layers"] == 3
    assert read["search-space"] == ["separable_convolution_3x3", "separable_convolution_5x5", "skip_connection"]
    told_settings = read["algorithm-settings"]
    assert (told_settings["num_epochs"], told_settings["batch_size"], told_settings["print_step"]) == ("3", None, 50)


def test_hyperband_takes_a_resource_that_is_no_parameter_as_katib_does(client):
    asked = experiment("hyperband", SMALL, {"r_l": "10", "resource_name": "--num-epochs"})
    old = [trial(f"t-{n}", {"units": "2", "kind": "cat1", "size": "2", "rate": "3.44"}, accuracy=1) for n in range(2)]
    reply = suggest(client, asked, 2, old)
    assert [values(s)["--num-epochs"] for s in reply.parameter_assignments] == ["1", "1"]


def test_hyperband_through_a_controller(client):
    """As a controller does: the settings of a reply are in the next request, and each request is answered in full."""
    asked = experiment("hyperband", EPOCHS, BAND, parallel_trial_count=9)
    asked.spec.objective.objective_metric_name = "accuracy"
    settings = dict(BAND)
    trials: list[api_pb2.Trial] = []
    states = []
    for _ in range(20):
        del asked.spec.algorithm.algorithm_settings[:]
        for key, value in settings.items():
            asked.spec.algorithm.algorithm_settings.add(name=key, value=value)
        try:
            reply = suggest(client, asked, 2, trials)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            break
        settings |= {item.name: item.value for item in reply.algorithm.algorithm_settings}
        states.append((settings["current_s"], settings["current_i"], settings["n"]))
        for suggestion in reply.parameter_assignments:
            given = values(suggestion)
            trials.append(trial(f"t-{len(trials)}", given, accuracy=given["rate"]))
    assert len(trials) == (9 + 3 + 1) + (5 + 2) + 3  # all brackets, to their ends
    assert states[0] == ("2", "0", "9") and ("2", "1", "9") in states and states[-1][0] == "0"
    assert (settings["s_max"], settings["r_l"], settings["eta"]) == ("2", "9", "3")


def test_populations_are_told_by_labels(client):
    asked = experiment("pbt", [number("rate", "0", "1")], {**PBT, "n_population": "5"})
    asked.spec.objective.objective_metric_name = "accuracy"
    first = suggest(client, asked, 5).parameter_assignments
    assert all(s.trial_name.startswith("test-") for s in first) and len({s.trial_name for s in first}) == 5
    trials = [trial(s.trial_name, values(s), labels=s.labels, accuracy=n) for n, s in enumerate(first)]
    second = suggest(client, asked, 5, trials).parameter_assignments
    generation, parent = (f"pbt.suggestion.katib.kubeflow.org/{name}" for name in ("generation", "parent"))
    assert {s.labels[generation] for s in first} == {"0"} and {s.labels[generation] for s in second} == {"1"}
    assert {s.labels[parent] for s in second} == {one.name for one in trials[1:]}


def test_early_stopping_needs_no_settings(client):
    stopping = api_pb2_grpc.EarlyStoppingStub(client.channel)
    request = api_pb2.GetEarlyStoppingRulesRequest(db_manager_address="katib-db-manager.kubeflow:6789")
    request.experiment.name = "test"
    request.trials.add(name="test-asfjh")
    assert not stopping.GetEarlyStoppingRules(request).early_stopping_rules


def test_bad_observation_logs_are_told(client):
    for time, name, value, field in [
        ("0001-01-01T00:00:00+23:59", "loss", "1", "time_stamp"),
        ("2026-01-01T00:00:00Z", "lo\0ss", "1", "metric.name"),
        ("2026-01-01T00:00:00Z", "loss", "1" * 5000, "metric.value"),
    ]:
        request = api_pb2.ReportObservationLogRequest(trial_name="t")
        request.observation_log.metric_logs.add(time_stamp=time, metric=api_pb2.Metric(name=name, value=value))
        code, details = told(lambda request=request: client.db.ReportObservationLog(request))
        assert code is INVALID and f"metric_logs[0].{field}" in details


def test_a_search_without_parameters_is_refused_when_it_is_asked(client):
    code, details = told(lambda: suggest(client, experiment("random"), 1))
    assert code is INVALID and "experiment.spec.parameter_specs.parameters" in details
