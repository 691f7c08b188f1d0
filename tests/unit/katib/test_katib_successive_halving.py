"""asha and bohb: who goes on, with how much of the resource, and what is chosen next."""

from collections import Counter
from collections.abc import Mapping

import pytest
from mlmesh_katib.activation import Activation
from mlmesh_katib.algorithms import ALGORITHMS, Answer, Observed, Question, ask
from mlmesh_katib.early_stopping import EARLY_STOPPING, History
from mlmesh_katib.space import Space, make_space
from mlmesh_kit.errors import InvalidArgument
from unit.katib.algorithm_needs import listed, made

RULE = EARLY_STOPPING["asha"]
X = made("x", "double", "0", "1")
EPOCHS = made("epochs", "int", "1", "27")


def history(name: str, *losses: float, new: int = 1) -> History:
    return History(name, losses, new=new)


def test_a_trial_goes_on_if_it_is_in_the_best_third_of_those_that_came_as_far() -> None:
    settings = {"min_resource": "2", "eta": "3"}
    others = [history(f"o-{n}", 9.0, float(n)) for n in range(1, 6)]
    assert RULE.decide(settings, history("t", 0.0), others) is None  # not on a rung yet
    assert RULE.decide(settings, history("t", 9.0, 1.5), others) is None
    reason = RULE.decide(settings, history("t", 0.0, 2.5), others)
    assert reason is not None and "number 3 of 6" in reason and "1/3" in reason
    assert RULE.decide(settings, history("t", 9.0, 2.5, 99.0), others) is None  # between two rungs
    later = [history(f"o-{n}", *[float(n)] * 6) for n in range(1, 6)]
    assert RULE.decide(settings, history("t", *[9.0] * 5, 2.5), later) is not None  # 6 is 2 * 3


def test_the_first_goes_on_and_of_few_only_the_best() -> None:
    assert RULE.decide({}, history("t", 5.0), []) is None
    assert RULE.decide({}, history("t", 5.0), [history("o", 6.0)]) is None
    assert RULE.decide({}, history("t", 5.0), [history("o", 4.0)]) is not None
    assert RULE.decide({}, history("t", 5.0), [history("o", 5.0)]) is None


def test_reports_that_come_together_pass_no_rung_unseen() -> None:
    others = [history("o", 1.0, 1.0, 1.0, 1.0)]
    assert RULE.decide({}, history("t", 5.0, 5.0, 5.0, 0.5), others) is None
    assert RULE.decide({}, history("t", 5.0, 5.0, 5.0, 0.5, new=2), others) is not None  # the third is on a rung
    assert RULE.decide({}, history("t", 5.0, 5.0, 0.5, 0.5, new=3), others) is None


def test_a_report_is_one_unit_of_the_resource() -> None:
    settings = {"min_resource": "2", "max_resource": "18", "reduction_factor": "3"}
    others = [history("o", 1.0, 1.0), history("short", 0.0)]
    assert RULE.decide(settings, history("t", 5.0), others) is None
    assert RULE.decide(settings, history("t", 5.0, 5.0), others) is not None
    ended = [history("o", *[1.0] * 18)]
    assert RULE.decide(settings, history("t", *[0.5] * 17, 5.0), ended) is None  # it has used all of it


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"min_resource": "0"}, "min_resource"),
        ({"r_min": "x"}, "r_min"),
        ({"min_resource": "2", "r_min": "2"}, "r_min"),
        ({"eta": "1"}, "eta"),
        ({"reduction_factor": "2.5"}, "reduction_factor"),
        ({"min_resource": "5", "max_resource": "4"}, "max_resource"),
        ({"max_resource": "nan"}, "max_resource"),
    ],
)
def test_bad_settings_are_named(settings: Mapping[str, str], named: str) -> None:
    for check in (
        lambda: RULE.validate(settings),
        lambda: ALGORITHMS["asha"].validate(Question(make_space([X], "p"), settings, ())),
    ):
        with pytest.raises(InvalidArgument) as caught:
            check()
        assert caught.value.violations[0][0] == f"algorithmSettings.{named}"


@pytest.mark.parametrize("name", ["asha", "bohb"])
def test_trials_that_report_as_they_go_are_stopped_by_the_rule_of_the_same_settings(name: str) -> None:
    settings = {"min_resource": "2", "eta": "4", "random_state": "1"}
    stopping = ALGORITHMS[name].early_stopping(Question(make_space([X], "p"), settings, ()))
    assert stopping == ("asha", {"min_resource": "2", "eta": "4"})
    RULE.validate(stopping[1])
    resourced = Question(make_space([X, EPOCHS], "p"), {"resource_name": "epochs"}, ())
    assert ALGORITHMS[name].early_stopping(resourced) is None
    assert ALGORITHMS["random"].early_stopping(resourced) is None


class Halving:
    """An experiment in which the number of epochs is a parameter."""

    def __init__(self, name: str, space: Space, **settings: str) -> None:
        self.name, self.space = name, space
        self.settings = {"resource_name": "epochs", "random_state": "1", **settings}
        self.trials: list[Observed] = []
        ALGORITHMS[name].validate(self.question)

    @property
    def question(self) -> Question:
        return Question(self.space, self.settings, tuple(self.trials), made=len(self.trials))

    def ask(self, count: int) -> Answer:
        return ask(ALGORITHMS[self.name], self.question, count)

    def step(self, count: int = 1) -> list[dict[str, str]]:
        found = [dict(suggestion.assignments) for suggestion in self.ask(count).suggestions]
        for assignments in found:
            point = self.space.parse(assignments)
            assert point is not None
            # Good is near 0.7, and little of the resource misleads.
            loss = (float(assignments["x"]) - 0.7) ** 2 + 0.01 / float(assignments["epochs"])
            self.trials.append(Observed(point, loss, assignments=assignments))
        return found


@pytest.mark.parametrize("name", ["asha", "bohb"])
def test_the_best_third_of_a_rung_gets_three_times_as_much(name: str) -> None:
    search = Halving(name, make_space([X, EPOCHS], "p"))
    assert [item["epochs"] for item in search.step(3)] == ["1"] * 3
    best = min(search.trials, key=lambda trial: trial.loss or 0.0).assignments["x"]
    assert search.step() == [{"x": best, "epochs": "3"}]
    assert [item["epochs"] for item in search.step()] == ["1"]
    for _ in range(75):
        search.step()
    rungs = Counter(trial.assignments["epochs"] for trial in search.trials)
    assert set(rungs) == {"1", "3", "9", "27"}
    for lower, upper in (("1", "3"), ("3", "9"), ("9", "27")):
        assert rungs[lower] // 3 - 1 <= rungs[upper] <= rungs[lower] // 2
    assert len({trial.point for trial in search.trials}) == 80
    twice = [[dict(s.assignments) for s in search.ask(4).suggestions] for _ in range(2)]
    assert twice[0] == twice[1]


def test_what_failed_with_more_is_not_tried_with_it_again() -> None:
    search = Halving("asha", make_space([X, EPOCHS], "p"))
    search.step(3)
    (more,) = search.step()
    search.trials[-1] = Observed(search.trials[-1].point, None)
    assert more["epochs"] == "3"
    assert [item["epochs"] for item in search.step(2)] == ["1", "1"]


def test_it_waits_for_what_runs_and_then_ends() -> None:
    search = Halving("asha", make_space([listed("x", "discrete", "0", "0.5", "0.7"), EPOCHS], "p"))
    begun = search.ask(3).suggestions
    points = [search.space.parse(suggestion.assignments) or () for suggestion in begun]
    search.trials = [Observed(point, None, running=True) for point in points]
    answer = search.ask(1)
    assert (list(answer.suggestions), answer.wait) == ([], True)
    search.trials = [Observed(point, float(number)) for number, point in enumerate(points)]
    assert [item["epochs"] for item in search.step()] == ["3"]
    answer = search.ask(1)
    assert (list(answer.suggestions), answer.wait) == ([], False)


@pytest.mark.parametrize(
    ("space", "settings", "named"),
    [
        ([X], {"resource_name": "epochs"}, "algorithmSettings.resource_name"),
        ([X, listed("epochs", "categorical", "1", "3")], {}, "algorithmSettings.resource_name"),
        ([X, listed("epochs", "discrete", "1", "4", "16")], {}, "algorithmSettings.resource_name"),
        ([X, EPOCHS], {"max_resource": "81"}, "algorithmSettings.resource_name"),
        ([X, EPOCHS], {"min_resource": "1.5"}, "algorithmSettings.resource_name"),
        ([X, made("epochs", "double", "0", "0.5")], {}, "algorithmSettings.min_resource"),
        ([EPOCHS], {}, "parameters"),
        ([X, EPOCHS], {"sampler": "grid"}, "algorithmSettings.sampler"),
        ([X, EPOCHS], {"sampler": "asha"}, "algorithmSettings.sampler"),
    ],
)
def test_a_resource_that_cannot_be_one_is_refused(space: list, settings: dict[str, str], named: str) -> None:
    question = Question(make_space(space, "p"), {"resource_name": "epochs", **settings}, ())
    with pytest.raises(InvalidArgument) as caught:
        ALGORITHMS["asha"].validate(question)
    assert caught.value.violations[0][0] == named


def test_a_discrete_resource_has_the_amounts_of_its_list() -> None:
    where = make_space([X, listed("epochs", "discrete", "1", "4", "16")], "p")
    search = Halving("asha", where, eta="4", sampler="tpe")
    for _ in range(40):
        search.step()
    assert set(Counter(trial.assignments["epochs"] for trial in search.trials)) == {"1", "4", "16"}


def spread(name: str, settings: Mapping[str, str], trials: list[Observed], seeds: int = 30) -> float:
    """How near to 0.7 it looks, on average."""
    near = 0.0
    for seed in range(seeds):
        question = Question(make_space([X], "p"), {**settings, "random_state": str(seed)}, trials, made=len(trials))
        (suggestion,) = ask(ALGORITHMS[name], question, 1).suggestions
        near += abs(float(suggestion.assignments["x"]) - 0.7)
    return near / seeds


@pytest.mark.parametrize(("name", "settings"), [("bohb", {"random_fraction": "0"}), ("asha", {"sampler": "tpe"})])
def test_the_model_is_of_the_highest_rung_with_enough_results(name: str, settings: dict[str, str]) -> None:
    """Early reports say that 0.1 is good, later ones that 0.7 is."""
    trials = []
    for number in range(24):
        x = (number + 0.5) / 24
        early, late = (x - 0.1) ** 2, (x - 0.7) ** 2
        reports = ((1.0, early), (2.0, early), (3.0, late))[: 3 if number % 2 else 2]
        trials.append(Observed((x,), reports[-1][1], reports=reports))
    assert spread(name, settings, trials) < 0.2
    misled = [Observed(t.point, t.loss, reports=t.reports[:2]) for t in trials]
    assert spread(name, settings, misled) > 0.35
    without = [Observed(t.point, (float(t.point[0]) - 0.7) ** 2) for t in trials]
    assert spread(name, settings, without) < 0.2  # nothing but what they ended with


@pytest.mark.parametrize(("name", "settings"), [("bohb", {"random_fraction": "0"}), ("asha", {"sampler": "tpe"})])
def test_the_model_of_a_rung_avoids_what_breaks_a_constraint(name: str, settings: dict[str, str]) -> None:
    trials = []
    for number in range(24):
        x = (number + 0.5) / 24
        loss = (x - 0.1) ** 2
        trials.append(Observed((x,), loss, violation=max(0.0, 0.6 - x), reports=((1.0, loss + 5), (3.0, loss + 4))))
    assert spread(name, settings, trials) < 0.2


def test_the_resource_grows_where_parameters_are_conditional() -> None:
    kind = listed("kind", "categorical", "plain", "deep")
    where = make_space([X, EPOCHS, kind, made("n", "int", "1", "9")], "p", [Activation(3, 2, frozenset({"deep"}))])
    search = Halving("asha", where)
    for _ in range(30):
        (assignments,) = search.step()
        assert ("n" in assignments) == (assignments["kind"] == "deep")
    assert set(Counter(trial.assignments["epochs"] for trial in search.trials)) >= {"1", "3", "9"}
    hanging = make_space([X, EPOCHS, kind], "p", [Activation(1, 2, frozenset({"deep"}))])
    with pytest.raises(InvalidArgument, match="there always"):
        Halving("asha", hanging)


def test_bohb_draws_a_share_at_random_and_asks_for_enough_results() -> None:
    trials = [Observed(((n + 0.5) / 20,), (n / 20 - 0.7) ** 2) for n in range(20)]
    assert spread("bohb", {"random_fraction": "1"}, trials) > 0.2
    assert spread("bohb", {"random_fraction": "0", "min_points_in_model": "100"}, trials) > 0.2
    assert spread("bohb", {"random_fraction": "0"}, trials) < 0.15


@pytest.mark.parametrize(
    "settings",
    [
        {"top_n_percent": "0"},
        {"num_samples": "0"},
        {"random_fraction": "1.1"},
        {"min_points_in_model": "0"},
    ],
)
def test_bad_settings_of_bohb_are_named(settings: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ALGORITHMS["bohb"].validate(Question(make_space([X], "p"), settings, ()))
    assert caught.value.violations[0][0] == f"algorithmSettings.{next(iter(settings))}"
