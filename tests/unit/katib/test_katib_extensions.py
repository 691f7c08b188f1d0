"""What an experiment may say beyond Katib's manifest, and how what is wrong with it is named."""

from typing import Any

import pytest
from mlmesh_katib.algorithms import Algorithm, Answer, Observed, Question, ask
from mlmesh_katib.constraint import UNREPORTED, Constraint
from mlmesh_katib.experiment import Experiment, Trial, TrialState, best_trial, decide, optimal_trials
from mlmesh_katib.manifest import ExperimentSpec, parse_manifest
from mlmesh_katib.objective import MetricSummary
from mlmesh_katib.suggestion import next_trials
from mlmesh_katib.trial_run import job_spec
from mlmesh_kit.errors import InvalidArgument
from unit.katib.test_katib_manifest import manifest

SECOND = {"type": "minimize", "objectiveMetricName": "seconds", "goal": 5}
BOUNDED = [{"metricName": "memory", "max": 100}, {"metricName": "seconds", "min": 1, "max": 60}]


def spec(objective: dict[str, Any] | None = None, **changed: Any) -> ExperimentSpec:
    made = manifest()
    made["spec"]["objective"].update(objective or {})
    made["spec"].update(changed)
    return parse_manifest(made, 50)


def trial(number: int, state: TrialState = TrialState.SUCCEEDED, **metrics: float) -> Trial:
    observation = tuple(MetricSummary(name, *[str(value)] * 3) for name, value in metrics.items())
    return Trial(number, f"t-{number}", {}, (), state, observation)


def test_further_objectives_are_collected_and_told() -> None:
    found = spec({"additionalObjectives": [SECOND]})
    assert found.objective.metrics == ("accuracy", "loss", "seconds")
    assert found.objective.losses(trial(1, accuracy=0.5, seconds=3).observation) == (-0.5, 3)
    assert found.objective.losses(trial(1, accuracy=0.5).observation) is None
    assert found.objective.missing(trial(1, accuracy=0.5).observation) == ["seconds"]


def test_the_optimal_trials_are_those_that_no_other_one_beats() -> None:
    found = spec({"additionalObjectives": [SECOND], "constraints": [{"metricName": "memory", "max": 10}]})
    trials = [
        trial(1, accuracy=0.9, seconds=30, memory=1),
        trial(2, accuracy=0.8, seconds=20, memory=1),
        trial(3, accuracy=0.7, seconds=25, memory=1),  # the second is better in both
        trial(4, accuracy=0.99, seconds=1, memory=11),
        trial(5, TrialState.FAILED, accuracy=1, seconds=1, memory=1),
        trial(6, accuracy=1, memory=1),
    ]
    assert [t.number for t in optimal_trials(found, trials)] == [1, 2]
    assert decide(found, trials, exhausted=False) is None
    reached = [*trials, trial(7, accuracy=0.995, seconds=4, memory=1)]
    verdict = decide(found, reached, exhausted=False)
    assert verdict is not None and verdict.reason == "ExperimentGoalReached"


def test_a_trial_beyond_a_constraint_is_not_the_best() -> None:
    found = spec({"constraints": BOUNDED})
    good = trial(1, accuracy=0.5, memory=100, seconds=1)
    greedy = trial(2, accuracy=0.999, memory=150, seconds=120)
    silent = trial(3, accuracy=0.999, seconds=30)
    assert found.objective.violation(good.observation) == 0
    assert found.objective.violation(greedy.observation) == pytest.approx(0.5 + 1)
    assert found.objective.violation(silent.observation) == UNREPORTED
    assert best_trial(found, [greedy, good, silent]) is good
    assert decide(found, [greedy], exhausted=False) is None  # its goal does not count
    verdict = decide(found, [greedy], exhausted=True)
    assert verdict is not None and not verdict.succeeded and "kept the constraints" in verdict.message


@pytest.mark.parametrize(
    ("constraint", "value", "excess"),
    [
        (Constraint("m", high=2), 2, 0),
        (Constraint("m", high=2), 3, 0.5),
        (Constraint("m", low=-2), -3, 0.5),
        (Constraint("m", high=0), 0.25, 0.25),
        (Constraint("m", low=1, high=2), 1.5, 0),
        (Constraint("m", high=1e-300), 1e300, UNREPORTED),
    ],
)
def test_the_excess_is_in_parts_of_the_bound(constraint: Constraint, value: float, excess: float) -> None:
    assert constraint.excess(value) == pytest.approx(excess)


class Spy(Algorithm):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def validate(self, question: Question) -> None:
        raise NotImplementedError

    def answer(self, question: Question, count: int) -> Answer:
        self.asked.append(question)
        return Answer([])


def test_an_algorithm_that_knows_no_constraints_finds_what_violates_them_behind_the_rest() -> None:
    point = (0.5, 3, "rbf", 16.0)
    outcomes = [(1.0, 0.0), (3.0, 0.0), (-50.0, 0.2), (None, 0.0), (-90.0, 4.0), (2.0, UNREPORTED)]
    trials = [Observed(point, loss, violation=violation) for loss, violation in outcomes]
    spy = Spy()
    ask(spy, Question(spec().space, {}, trials), 1)
    told = [trial.loss for trial in spy.asked[0].trials]
    assert told[:2] == [1.0, 3.0] and told[3] is None
    assert 3.0 < (told[2] or 0) < (told[4] or 0) < (told[5] or 0) <= 5.0
    spy.knows_constraints = True
    ask(spy, Question(spec().space, {}, trials), 1)
    assert spy.asked[1].trials is trials


def conditional(**when: Any) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = manifest()["spec"]["parameters"]
    for parameter in parameters:
        if parameter["name"] in when:
            parameter["activeWhen"] = when[parameter["name"]]
    return parameters


def test_a_parameter_that_is_not_active_is_no_assignment_and_an_empty_text_in_the_template() -> None:
    when = {"size": {"parameter": "kernel", "values": ["rbf"]}, "depth": {"parameter": "size", "values": [16]}}
    found = spec(parameters=conditional(**when), maxTrialCount=40)
    suggestions = next_trials(found, [], 40).suggestions
    names = {frozenset(suggestion.assignments) for suggestion in suggestions}
    assert names == {
        frozenset({"lr", "kernel"}),
        frozenset({"lr", "kernel", "size"}),
        frozenset({"lr", "kernel", "size", "depth"}),
    }
    experiment = Experiment(1, "default", "search", {}, (), True, 0, None)
    linear = next(s.assignments for s in suggestions if s.assignments["kernel"] == "linear")
    job = job_spec(experiment, found, Trial(1, "t", linear, ()))
    container = job.manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "DEPTH", "value": ""}]


OBJECTIVE, PARAMETERS = "manifest.spec.objective", "manifest.spec.parameters"
WARM = "manifest.spec.warmStart"


@pytest.mark.parametrize(
    ("objective", "changed", "field"),
    [
        ({"additionalObjectives": {}}, {}, f"{OBJECTIVE}.additionalObjectives"),
        ({"additionalObjectives": [SECOND] * 20}, {}, f"{OBJECTIVE}.additionalObjectives"),
        ({"additionalObjectives": [SECOND, SECOND]}, {}, f"{OBJECTIVE}.additionalObjectives[1].objectiveMetricName"),
        ({"additionalObjectives": [{**SECOND, "type": "least"}]}, {}, f"{OBJECTIVE}.additionalObjectives[0].type"),
        ({"additionalObjectives": [{**SECOND, "goal": "5"}]}, {}, f"{OBJECTIVE}.additionalObjectives[0].goal"),
        (
            {"additionalObjectives": [SECOND]},
            {"algorithm": {"algorithmName": "tpe"}},
            f"{OBJECTIVE}.additionalObjectives",
        ),
        (
            {"additionalObjectives": [SECOND]},
            {"earlyStopping": {"algorithmName": "medianstop"}},
            "manifest.spec.earlyStopping",
        ),
        ({"constraints": "memory < 5"}, {}, f"{OBJECTIVE}.constraints"),
        ({"constraints": [{"metricName": "m"}]}, {}, f"{OBJECTIVE}.constraints[0]"),
        ({"constraints": [{"metricName": "m", "max": "4"}]}, {}, f"{OBJECTIVE}.constraints[0].max"),
        ({"constraints": [{"metricName": "m", "min": 4, "max": 3}]}, {}, f"{OBJECTIVE}.constraints[0].min"),
        ({"constraints": [{"max": 3}]}, {}, f"{OBJECTIVE}.constraints[0].metricName"),
        ({}, {"parameters": conditional(size=[])}, f"{PARAMETERS}[3].activeWhen"),
        (
            {},
            {"parameters": conditional(size={"parameter": "k", "values": ["rbf"]})},
            f"{PARAMETERS}[3].activeWhen.parameter",
        ),
        (
            {},
            {"parameters": conditional(size={"parameter": "lr", "values": ["0.1"]})},
            f"{PARAMETERS}[3].activeWhen.parameter",
        ),
        (
            {},
            {"parameters": conditional(size={"parameter": "kernel", "values": []})},
            f"{PARAMETERS}[3].activeWhen.values",
        ),
        (
            {},
            {"parameters": conditional(size={"parameter": "kernel", "values": ["rbf", "cubic"]})},
            f"{PARAMETERS}[3].activeWhen.values[1]",
        ),
        (
            {},
            {"parameters": conditional(size={"parameter": "size", "values": [16]})},
            f"{PARAMETERS}[3].activeWhen",
        ),
        (
            {},
            {
                "parameters": conditional(
                    depth={"parameter": "kernel", "values": ["rbf"]},
                    kernel={"parameter": "size", "values": [16]},
                    size={"parameter": "depth", "values": [1]},
                )
            },
            f"{PARAMETERS}[1].activeWhen",
        ),
        (
            {},
            {"parameters": conditional(size={"parameter": "depth", "values": [1, 2]})},
            f"{PARAMETERS}[3].activeWhen.values[1]",
        ),
        ({}, {"warmStart": []}, WARM),
        ({}, {"warmStart": {"experiments": []}}, f"{WARM}.experiments"),
        ({}, {"warmStart": {"experiments": ["a", "No Name"]}}, f"{WARM}.experiments[1]"),
        ({}, {"warmStart": {"experiments": ["a/b/c"]}}, f"{WARM}.experiments[0]"),
        ({}, {"warmStart": {"experiments": ["a"], "maxTrials": 0}}, f"{WARM}.maxTrials"),
        ({}, {"warmStart": {"experiments": ["a"], "maxTrials": 10**6}}, f"{WARM}.maxTrials"),
    ],
)
def test_what_is_wrong_is_named(objective: dict[str, Any], changed: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        spec(objective, **changed)
    assert caught.value.violations[0][0] == field


def test_who_has_several_objectives_is_said() -> None:
    with pytest.raises(InvalidArgument, match=r"bayesianoptimization has one objective.*random"):
        spec({"additionalObjectives": [SECOND]}, algorithm={"algorithmName": "bayesianoptimization"})
