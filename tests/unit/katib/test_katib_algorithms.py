"""What each of Katib's algorithms is for; what all must do is a suite of its own."""

import math
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_katib.algorithms import ALGORITHMS, Observed, Question
from mlmesh_katib.experiment import Trial, TrialState
from mlmesh_katib.manifest import parse_manifest
from mlmesh_katib.objective import MetricSummary
from mlmesh_katib.space import Parameter, Space, Value, make_space
from mlmesh_katib.suggestion import next_trials
from mlmesh_kit.errors import InvalidArgument
from unit.katib.algorithm_needs import listed, made

warnings.simplefilter("ignore")

QUICK = {"n_initial_points": "3", "acq_func": "EI", "acq_optimizer": "sampling"}
"""A Gaussian process without what makes it slow; the defaults have tests of their own."""


DOUBLES = [
    made("plain", "double", "-1.5", "2.5"),
    made("log", "double", "1e-6", "10", distribution="logUniform"),
    made("normal", "double", "-3", "7", distribution="normal"),
    made("log-normal", "double", "0.001", "10", distribution="logNormal"),
    made("tiny", "double", "1e-300", "2e-300"),
]
STEPS = [
    made("step", "double", "0", "1", "0.1"),
    made("digits", "double", "0.33333333333333331", "1.4", "0.1"),
    made("uneven", "double", "0", "1", "0.3"),
    made("log step", "double", "0.001", "1", "0.001", "logUniform"),
    made("normal step", "double", "-1", "1", "0.25", "normal"),
]
WHOLE = [
    made("int", "int", "-5", "50"),
    made("int log", "int", "1", "1000", distribution="logUniform"),
    made("int step", "int", "0", "100", "7"),
    made("int log step", "int", "1", "100", "3", "logNormal"),
    made("int normal", "int", "0", "20", distribution="normal"),
    made("int wide", "int", "-9007199254740992", "9007199254740992"),
]
LISTED = [
    listed("discrete", "discrete", "1", "2.5", "1e-7", "1000000"),
    listed("categorical", "categorical", "adam", "a b", "é", "1.0", ""),
]
FIXED = [made("one", "double", "2", "2", "1"), made("only", "int", "3", "3"), listed("sole", "categorical", "k")]


def ask(
    algorithm: str, space: Space, trials: Sequence[Observed], count: int, seed: int | None = 1
) -> list[tuple[Value, ...]]:
    chosen = {} if algorithm == "grid" or seed is None else {"random_state": str(seed)}
    if algorithm == "bayesianoptimization":
        chosen.update(QUICK)
    question = Question(space, chosen, trials, made=len(trials))
    ALGORITHMS[algorithm].validate(question)
    return ALGORITHMS[algorithm].suggest(question, count)


def manifest(algorithm: str, kind: str) -> dict[str, object]:
    chosen = {**QUICK, "random_state": "3"} if algorithm == "bayesianoptimization" else {"random_state": "3"}
    container = {"name": "main", "command": ["true"]}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "direction"},
        "spec": {
            "objective": {"type": kind, "objectiveMetricName": "m"},
            "algorithm": {
                "algorithmName": algorithm,
                "algorithmSettings": [{"name": name, "value": value} for name, value in chosen.items()],
            },
            "parameters": [{"name": "x", "parameterType": "double", "feasibleSpace": {"min": "-1", "max": "1"}}],
            "trialTemplate": {
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"containers": [container]}}},
                }
            },
        },
    }


def search(algorithm: str, kind: str, objective: Callable[[float], float], count: int) -> list[float]:
    """Runs an experiment's trials one after another, without processes; gives where it looked."""
    spec = parse_manifest(manifest(algorithm, kind), 100)
    trials: list[Trial] = []
    for number in range(1, count + 1):
        (suggestion,) = next_trials(spec, trials, 1).suggestions
        values = suggestion.assignments
        text = repr(objective(float(values["x"])))
        trials.append(
            Trial(number, str(number), values, (), TrialState.SUCCEEDED, (MetricSummary("m", text, text, text),))
        )
    return [float(trial.assignments["x"]) for trial in trials]


@pytest.mark.parametrize("algorithm", ["random", "sobol", "tpe", "multivariate-tpe", "bayesianoptimization"])
def test_to_maximise_is_to_minimise_the_opposite(algorithm: str) -> None:
    def parabola(x: float) -> float:
        return (x - 0.4) ** 2

    down = search(algorithm, "minimize", parabola, 7)
    up = search(algorithm, "maximize", lambda x: -parabola(x), 7)
    assert up == down
    if algorithm == "bayesianoptimization":  # 7 trials are enough for it to be near
        assert min(abs(x - 0.4) for x in down) < 0.1
        wrong_way = search(algorithm, "maximize", parabola, 7)
        assert min(abs(x + 1) for x in wrong_way) < 0.1


# Random


def test_random_values_are_spread_as_the_distribution_says() -> None:
    space = make_space(DOUBLES[:4] + WHOLE[1:2], "parameters")
    points = ask("random", space, [], 2000)
    columns = dict(zip((parameter.name for parameter in space.parameters), zip(*points, strict=True), strict=True))

    def share(name: str, low: float, high: float) -> float:
        return sum(low <= float(value) <= high for value in columns[name]) / 2000

    # Four standard deviations of a share of 2,000 draws are at most 0.045.
    assert share("plain", -1.5, 0.5) == pytest.approx(0.5, abs=0.045)
    assert share("log", 1e-6, math.sqrt(1e-5)) == pytest.approx(0.5, abs=0.045)  # half of the magnitudes
    assert share("int log", 1, 10) == pytest.approx(0.34, abs=0.045)  # log(10.5) / log(1000)
    deviation = 10 / 6
    assert share("normal", 2 - deviation, 2 + deviation) == pytest.approx(0.683, abs=0.045)
    middle, spread = (math.log(0.001) + math.log(10)) / 2, (math.log(10) - math.log(0.001)) / 6
    inside = share("log-normal", math.exp(middle - spread), math.exp(middle + spread))
    assert inside == pytest.approx(0.683, abs=0.045)


def test_random_steps_and_lists_are_all_as_likely() -> None:
    space = make_space([STEPS[0], made("wide", "int", "0", "1000000"), LISTED[1]], "parameters")
    points = ask("random", space, [], 3300)
    for column, expected in ((0, 3300 / 11), (2, 3300 / 5)):
        counts = Counter(point[column] for point in points)
        assert len(counts) == 3300 // int(expected)
        assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


# Grid


def test_the_grid_is_walked_in_order() -> None:
    space = make_space([made("a", "int", "1", "3"), listed("b", "categorical", "x", "y")], "parameters")
    points = ask("grid", space, [], 5)
    assert points == [(1, "x"), (1, "y"), (2, "x"), (2, "y"), (3, "x")]


def test_a_grid_without_end_is_begun() -> None:
    """Its points are counted, not listed: 10^18 of them."""
    space = make_space([made("a", "int", "0", "1000000000"), made("b", "int", "0", "1000000000")], "parameters")
    assert ask("grid", space, [], 3) == [(0, 0), (0, 1), (0, 2)]


def test_a_grid_needs_steps_and_enough_points() -> None:
    with pytest.raises(InvalidArgument, match="step is nil"):
        ask("grid", make_space(DOUBLES[:1], "parameters"), [], 1)
    space = make_space([made("a", "int", "1", "3")], "parameters")
    with pytest.raises(InvalidArgument, match="4 > all possible search combinations: 3"):
        ALGORITHMS["grid"].validate(Question(space, {}, (), max_trial_count=4))


# Bayesian optimisation


@pytest.mark.parametrize(
    ("estimator", "acquisition", "optimizer"),
    [
        ("GP", "gp_hedge", "auto"),
        ("GP", "EIps", "auto"),
        ("GP", "PI", "lbfgs"),
        ("RF", "PIps", "auto"),
        ("RF", "EI", "lbfgs"),
        ("ET", "LCB", "sampling"),
        ("GBRT", "gp_hedge", "auto"),
        ("GBRT", "EIps", "sampling"),
    ],
)
def test_settings_that_pass_the_check_work(estimator: str, acquisition: str, optimizer: str) -> None:
    chosen = {"base_estimator": estimator, "acq_func": acquisition, "acq_optimizer": optimizer, "random_state": "1"}
    for parameters in ([DOUBLES[0], LISTED[1]], LISTED[1:]):
        space = make_space(parameters, "parameters")
        trials = [Observed(point, float(n)) for n, point in enumerate(ask("random", space, [], 3))]
        question = Question(space, {**chosen, "n_initial_points": "2"}, trials, made=3)
        try:
            ALGORITHMS["bayesianoptimization"].validate(question)
        except InvalidArgument as error:
            assert optimizer == "lbfgs" and "acq_optimizer" in error.message
            assert estimator != "GP" or len(parameters) == 1
            continue
        points = ALGORITHMS["bayesianoptimization"].suggest(question, 1)
        assert len(points) == 1
        assert points == ALGORITHMS["bayesianoptimization"].suggest(question, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_estimator", "SVM"),
        ("n_initial_points", "-1"),
        ("n_initial_points", "many"),
        ("acq_func", "UCB"),
        ("acq_optimizer", "adam"),
        ("random_state", "-1"),
    ],
)
def test_settings_that_would_not_work_are_refused(name: str, value: str) -> None:
    space = make_space(DOUBLES[:1], "parameters")
    with pytest.raises(InvalidArgument, match=name):
        ALGORITHMS["bayesianoptimization"].validate(Question(space, {name: value}, ()))


def best_of(algorithm: str, seed: int, count: int) -> float:
    """How far from its smallest value a bowl in two dimensions is after `count` trials."""
    space = make_space([made("x", "double", "-1", "1"), made("y", "double", "-1", "1")], "parameters")
    trials: list[Observed] = []
    for _ in range(count):
        ((x, y),) = ask(algorithm, space, trials, 1, seed)
        trials.append(Observed((x, y), (float(x) - 0.3) ** 2 + 2 * (float(y) + 0.2) ** 2))
    return min(float(trial.loss or 0) for trial in trials)


def test_what_it_is_told_makes_it_better_than_chance() -> None:
    seeds = range(3)
    guided = [best_of("bayesianoptimization", seed, 12) for seed in seeds]
    blind = [best_of("random", seed, 12) for seed in range(20)]
    # Of 40 seeds, the worst guided run ended at 0.006; the geometric means were 0.0008 and 0.07.
    assert max(guided) < statistics.median(blind)
    assert statistics.geometric_mean(guided) < statistics.geometric_mean(blind) / 10


# Parameters, whatever they are


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)


@st.composite
def parameters(draw: st.DrawFn) -> Parameter:
    kind = draw(st.sampled_from(["double", "int", "discrete", "categorical"]))
    if kind == "categorical":
        return listed(
            "p",
            kind,
            *draw(
                st.lists(
                    st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=5, unique=True
                )
            ),
        )
    if kind == "discrete":
        return listed("p", kind, *draw(st.lists(numbers.map(repr), min_size=1, max_size=5, unique=True)))
    bounds = st.integers(-(10**18), 10**18) if kind == "int" else numbers
    low, high = sorted((draw(bounds), draw(bounds)))
    widths = st.none() | (st.integers(1, 10**6) if kind == "int" else st.floats(1e-12, 1e12))
    step = draw(widths)
    distribution = draw(st.sampled_from(["", "uniform", "logUniform", "normal", "logNormal"]))
    return made("p", kind, repr(low), repr(high), "" if step is None else repr(step), distribution)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_parameter_that_is_accepted_works(data: st.DataObject) -> None:
    try:
        parameter = data.draw(parameters())
    except InvalidArgument:
        return  # refused in words: fine, too
    space = make_space([parameter], "parameters")
    points = ask("random", space, [], 5)
    if parameter.count() is not None:
        points += ask("grid", space, [], 5)
        assert len(points) >= min(5, parameter.count() or 0)
    for point in points:
        (text,) = space.key(point)
        value = parameter.parse(text)
        assert value is not None, (parameter, text)
        assert parameter.format(value) == text
        if not parameter.is_list:
            assert parameter.low <= float(text) <= parameter.high


@pytest.mark.parametrize(
    ("kind", "low", "high", "step", "field"),
    [
        ("int", "0", "1e30", "", "feasibleSpace"),
        ("double", "-1.7e308", "1.7e308", "", "feasibleSpace"),
        ("double", "0", "1", "1e-300", "feasibleSpace.step"),
        ("double", "0", "1", "0", "feasibleSpace.step"),
        ("int", "0", "10", "2.5", "feasibleSpace.step"),
        ("double", "0", "inf", "", "feasibleSpace.max"),
        ("double", "nan", "1", "", "feasibleSpace.min"),
    ],
)
def test_ranges_that_no_algorithm_could_search(kind: str, low: str, high: str, step: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        made("p", kind, low, high, step)
    assert f"parameters[0].{field}" in str(caught.value.message)
