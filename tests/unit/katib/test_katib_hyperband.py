"""Hyperband: its brackets, and that all state is in the trials."""

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from mlmesh_katib.algorithms import ALGORITHMS, Observed, Question, Suggestion
from mlmesh_katib.space import make_space
from mlmesh_kit.errors import InvalidArgument
from unit.katib.algorithm_needs import listed, made

HYPERBAND = ALGORITHMS["hyperband"]
SETTINGS = {"r_l": "27", "eta": "3", "resource_name": "epochs", "random_state": "1"}
SPACE = make_space([made("rate", "double", "0", "1"), made("epochs", "int", "3", "3")], "parameters")


def question(trials=(), space=SPACE, parallel: int = 27, **settings: str) -> Question:
    given = {**SETTINGS, **settings}
    inner = HYPERBAND.space_of(space, given)
    return Question(inner, given, list(trials), made=len(trials), parallel=parallel, experiment="e")


def run(suggestion: Suggestion, loss: float | None, space=SPACE) -> Observed:
    point = HYPERBAND.space_of(space, SETTINGS).parse(suggestion.assignments)
    assert point is not None
    return Observed(point, loss, running=loss is None, assignments=suggestion.assignments)


def rungs(trials: list[Observed]) -> dict[tuple[float, ...], list[int]]:
    """Gives configuration → the resources it was run with."""
    found = defaultdict(list)
    for trial in trials:
        found[trial.point].append(int(trial.assignments["epochs"]))
    return found


def everything(ask: int, shuffle: bool = False) -> list[Observed]:
    """Runs to the end, `ask` trials at a time; the loss is the rate."""
    trials: list[Observed] = []
    while True:
        known = random.Random(len(trials)).sample(trials, len(trials)) if shuffle else trials
        answer = HYPERBAND.answer(question(known), ask)
        if not answer.suggestions:
            assert not answer.wait and answer.settings["current_s"] == "-1"
            return trials
        assert len(answer.suggestions) <= ask
        trials += [run(s, float(s.assignments["rate"])) for s in answer.suggestions]


@pytest.mark.parametrize(("ask", "shuffle"), [(1, False), (4, True), (27, False)])
def test_brackets_halve_what_they_begin_with(ask, shuffle):
    trials = everything(ask, shuffle)
    begun = Counter((min(resources), len(resources)) for resources in rungs(trials).values())
    # s = 3: 27 with 1, 9 with 3, 3 with 9, 1 with 27; s = 2: 12, 4, 2; s = 1: 6, 2; s = 0: 4
    assert {key: begun[key] for key in sorted(begun)} == {
        **{(1, 1): 18, (1, 2): 6, (1, 3): 2, (1, 4): 1},
        **{(3, 1): 8, (3, 2): 2, (3, 3): 2, (9, 1): 4, (9, 2): 2, (27, 1): 4},
    }
    first = {point: resources for point, resources in rungs(trials).items() if min(resources) == 1}
    best = sorted(first)[:9]
    assert {point for point, resources in first.items() if 3 in resources} == set(best)


def test_a_rung_waits_for_its_trials_and_the_next_bracket_begins():
    first = [run(s, None) for s in HYPERBAND.answer(question(), 27).suggestions]
    assert {trial.assignments["epochs"] for trial in first} == {"1"}
    first = [replace(trial, loss=trial.point[0], running=False) for trial in first[1:]] + [first[0]]
    answer = HYPERBAND.answer(question(first), 2)
    assert [s.assignments["epochs"] for s in answer.suggestions] == ["3", "3"]
    assert answer.settings["evaluating_trials"] == "1" and answer.settings["current_s"] == "3"
    rest = HYPERBAND.answer(question(first), 1000)
    assert len(rest.suggestions) == 12 + 6 + 4 and rest.wait


def test_trials_that_fail_do_not_go_on():
    first = HYPERBAND.answer(question(), 27).suggestions
    trials = [run(s, 1.0) for s in first[:2]] + [replace(run(s, None), running=False) for s in first[2:]]
    answer = HYPERBAND.answer(question(trials), 3)
    promoted = [s for s in answer.suggestions if (run(s, None).point) in {t.point for t in trials}]
    assert {run(s, None).point for s in promoted} == {trials[0].point, trials[1].point}


def test_a_space_with_few_points_begins_with_fewer():
    space = make_space([listed("kind", "categorical", "a", "b", "c"), made("epochs", "int", "1", "9")], "parameters")
    trials: list[Observed] = []
    resources = []
    while suggestions := HYPERBAND.answer(question(trials, space), 5).suggestions:
        resources.append(sorted(int(s.assignments["epochs"]) for s in suggestions))
        trials += [run(s, float(ord(s.assignments["kind"])), space) for s in suggestions]
    assert resources == [[1, 1, 1], [3], [9], [27]]
    assert {t.assignments["kind"] for t in trials if t.assignments["epochs"] == "27"} == {"a"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eta": "1"}, "eta must be at least 2"),
        ({"r_l": "0.5"}, "r_l must be a positive float number"),
        ({"r_l": "inf"}, "r_l must be a positive float number"),
        ({"budget": "1"}, "unknown setting budget for algorithm hyperband"),
        ({"resource_name": ""}, "r_l and resource_name must be set."),
    ],
)
def test_bad_settings_are_told(settings, message):
    with pytest.raises(InvalidArgument) as caught:
        HYPERBAND.validate(question(**settings))
    assert message in caught.value.message


def test_powers_are_counted_without_the_errors_of_logarithms():
    answer = HYPERBAND.answer(question(r_l="243"), 1)
    assert (answer.settings["s_max"], answer.suggestions[0].assignments["epochs"]) == ("5", "1")
