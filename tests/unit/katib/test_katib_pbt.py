"""Population based training: generations, who goes on from whom, and what a member's parameters become."""

import pytest
from mlmesh_katib.algorithms import ALGORITHMS, Observed, Question, Suggestion
from mlmesh_katib.algorithms.pbt import GENERATION, PARENT
from mlmesh_katib.space import Space, make_space
from unit.katib.algorithm_needs import listed, made

PBT = ALGORITHMS["pbt"]
SETTINGS = {"suggestion_trial_dir": "/data", "n_population": "10", "truncation_threshold": "0.2", "random_state": "1"}
RATE = make_space([made("rate", "double", "0.001", "100")], "parameters")
MIXED = make_space(
    [
        made("units", "int", "1", "64"),
        made("step", "double", "0", "1", "0.25"),
        listed("size", "discrete", "1", "2", "4"),
        listed("kind", "categorical", "a", "b", "c"),
    ],
    "parameters",
)


def question(trials=(), space: Space = RATE, **settings: str) -> Question:
    trials = list(trials)
    return Question(space, {**SETTINGS, **settings}, trials, made=len(trials), experiment="e")


def run(suggestion: Suggestion, loss: float | None, space: Space = RATE, *, failed: bool = False) -> Observed:
    point = space.parse(suggestion.assignments)
    assert point is not None
    return Observed(
        point,
        loss,
        running=loss is None and not failed,
        name=suggestion.name,
        labels=suggestion.labels,
        assignments=suggestion.assignments,
    )


def test_the_worst_are_replaced_by_the_best_and_the_others_go_on():
    first = PBT.answer(question(), 10).suggestions
    trials = [run(suggestion, float(rank)) for rank, suggestion in enumerate(first)]
    second = PBT.answer(question(trials), 10).suggestions
    assert {suggestion.labels[GENERATION] for suggestion in second} == {"1"}
    parents = {trial.name: trial for trial in trials}
    ranks = [parents[suggestion.labels[PARENT]].loss for suggestion in second]
    assert ranks[:8] == list(range(8)) and set(ranks[8:]) <= {0.0, 1.0}
    for suggestion in second[:8]:
        before = parents[suggestion.labels[PARENT]].point[0]
        factor = float(suggestion.assignments["rate"]) / float(before)
        assert factor == pytest.approx(0.8) or factor == pytest.approx(1.2) or suggestion.assignments["rate"] == "100.0"
    for suggestion in second[8:]:
        assert suggestion.assignments == parents[suggestion.labels[PARENT]].assignments


def test_a_generation_waits_for_the_one_before_and_never_for_nothing():
    first = PBT.answer(question(), 10).suggestions
    trials = [run(suggestion, float(rank)) for rank, suggestion in enumerate(first[:9])] + [run(first[9], None)]
    more = PBT.answer(question(trials), 2).suggestions
    assert [suggestion.labels for suggestion in more] == [{GENERATION: "0"}] * 2
    trials[9] = run(first[9], None, failed=True)
    again = PBT.answer(question(trials), 1).suggestions[0]
    assert again.labels == {GENERATION: "0"}
    trials.append(run(again, 0.5))
    assert PBT.answer(question(trials), 1).suggestions[0].labels[GENERATION] == "1"


def test_members_of_a_generation_are_suggested_one_at_a_time_as_all_at_once():
    trials = [run(s, float(rank)) for rank, s in enumerate(PBT.answer(question(), 10).suggestions)]
    at_once = PBT.answer(question(trials), 10).suggestions
    one_by_one = []
    for _ in range(10):
        suggestion = PBT.answer(question(trials), 1).suggestions[0]
        one_by_one.append(suggestion)
        trials.append(run(suggestion, None))
    assert one_by_one == list(at_once)
    assert len({suggestion.name for suggestion in one_by_one}) == 10


def test_parameters_of_every_kind_move_to_feasible_values():
    trials = [run(s, float(rank), MIXED) for rank, s in enumerate(PBT.answer(question(space=MIXED), 10).suggestions)]
    second = PBT.answer(question(trials, MIXED), 8).suggestions
    moved = 0
    for suggestion, before in zip(second, trials, strict=False):
        point = MIXED.parse(suggestion.assignments)
        assert point is not None and float(point[1]) * 4 % 1 == 0
        assert point[3] != before.point[3]
        moved += point[0] != before.point[0]
        assert abs([1, 2, 4].index(point[2]) - [1, 2, 4].index(before.point[2])) <= 1
    assert moved >= 6


def test_with_a_probability_parameters_are_drawn_anew():
    trials = [run(s, float(rank)) for rank, s in enumerate(PBT.answer(question(), 10).suggestions)]
    kept = PBT.answer(question(trials, resample_probability="0"), 8).suggestions
    assert [s.assignments for s in kept] == [dict(t.assignments) for t in trials[:8]]
    drawn = PBT.answer(question(trials, resample_probability="1"), 8).suggestions
    assert not {s.assignments["rate"] for s in drawn} & {t.assignments["rate"] for t in trials}


def test_labels_that_are_none_of_ours_are_of_the_first_generation():
    trials = [Observed((1.0,), 1.0, labels={GENERATION: label}) for label in ("x", "-1", "9" * 5000, "")]
    assert PBT.answer(question(trials), 1).suggestions[0].labels == {GENERATION: "0"}
