"""What every algorithm must do, as one suite over all of them; what each is for is tested beside it."""

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_katib.algorithms import ALGORITHMS, Answer, Observed, Question, Suggestion
from mlmesh_katib.space import Space, Value, make_space
from mlmesh_kit.errors import InvalidArgument
from unit.katib.algorithm_needs import SEARCH_SPACES, SEEDED, UNIQUE, feasible, listed, made, needs_of

warnings.simplefilter("ignore")

INDISTINCT = made("indistinct", "double", "1000000000000000", "1000000000000001", distribution="logUniform")
"""Its ends have the same logarithm."""
EVERYTHING = [
    made("plain", "double", "-1.5", "2.5"),
    made("log", "double", "1e-6", "10", distribution="logUniform"),
    made("normal", "double", "-3", "7", distribution="normal"),
    made("log-normal", "double", "0.001", "10", distribution="logNormal"),
    made("tiny", "double", "1e-300", "2e-300"),
    made("step", "double", "0", "1", "0.1"),
    made("digits", "double", "0.33333333333333331", "1.4", "0.1"),
    made("uneven", "double", "0", "1", "0.3"),
    made("log step", "double", "0.001", "1", "0.001", "logUniform"),
    made("normal step", "double", "-1", "1", "0.25", "normal"),
    made("int", "int", "-5", "50"),
    made("int log", "int", "1", "1000", distribution="logUniform"),
    made("int step", "int", "0", "100", "7"),
    made("int log step", "int", "1", "100", "3", "logNormal"),
    made("int normal", "int", "0", "20", distribution="normal"),
    made("int wide", "int", "-9007199254740992", "9007199254740992"),
    listed("discrete", "discrete", "1", "2.5", "1e-7", "1000000"),
    listed("categorical", "categorical", "adam", "a b", "é", "1.0", ""),
    made("one", "double", "2", "2", "1"),
    made("only", "int", "3", "3"),
    listed("sole", "categorical", "k"),
]


@dataclass
class Search:
    """An experiment as an algorithm sees it: what was suggested, and what came of it."""

    algorithm: str
    space: Space
    seed: int | None = 1
    trials: list[Observed] = field(default_factory=list)
    prior: list[Observed] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)

    @property
    def question(self) -> Question:
        needs = needs_of(self.algorithm)
        chosen = dict(needs.settings)
        if needs.seeded and self.seed is not None:
            chosen["random_state"] = str(self.seed)
        return Question(
            self.searched,
            {**chosen, **self.state},
            tuple(self.trials),
            made=len(self.trials),
            max_trial_count=needs.max_trial_count,
            parallel=needs.parallel,
            prior=tuple(self.prior),
            nas=needs.nas,
            experiment="contract",
        )

    @property
    def searched(self) -> Space:
        """What the algorithm is told: the space without what it sets itself."""
        return ALGORITHMS[self.algorithm].space_of(self.space, needs_of(self.algorithm).settings)

    def ask(self, count: int) -> Answer:
        answer = ALGORITHMS[self.algorithm].answer(self.question, count)
        self.state.update(answer.settings)
        assert len(answer.suggestions) <= count
        return answer

    def begin(self, count: int, loss: Callable[[int], float | None] | None = None) -> list[tuple[Value, ...]]:
        """Asks, and makes trials of the answer: they run, or `loss` gives of a trial's number what it ended with."""
        points = []
        for suggestion in self.ask(count).suggestions:
            point = self.read(suggestion)
            points.append(point)
            value = loss(len(self.trials)) if loss else None
            self.trials.append(
                Observed(
                    point,
                    value,
                    running=loss is None,
                    name=suggestion.name or f"contract-{len(self.trials)}",
                    labels=dict(suggestion.labels),
                    assignments=dict(suggestion.assignments),
                )
            )
        return points

    def read(self, suggestion: Suggestion) -> tuple[Value, ...]:
        whole, point = self.space.parse(suggestion.assignments), self.searched.parse(suggestion.assignments)
        assert whole is not None and point is not None, suggestion
        names = [parameter.name for parameter in self.space.parameters]
        assert suggestion.assignments == dict(zip(names, self.space.key(whole), strict=True))
        return point


def space_for(algorithm: str, *parameters: object) -> Space:
    needs = needs_of(algorithm)
    wanted = [parameter for parameter in parameters or EVERYTHING if needs.fits(parameter)]  # type: ignore[arg-type]
    return make_space([*needs.parameters, *wanted], "parameters")  # type: ignore[list-item]


def validated(algorithm: str, space: Space, **chosen: object) -> Search:
    search = Search(algorithm, space, **chosen)  # type: ignore[arg-type]
    ALGORITHMS[algorithm].validate(replace(search.question, space=space))
    return search


STEPPED = made("x", "double", "0", "1", "0.01")
SMALL = (made("n", "int", "1", "3"), listed("c", "categorical", "a", "b"))


@pytest.mark.parametrize("algorithm", SEARCH_SPACES)
def test_every_kind_of_parameter_gets_values_of_its_own(algorithm: str) -> None:
    search = validated(algorithm, space_for(algorithm, *EVERYTHING, INDISTINCT))
    for count in [3, 1, 1] if needs_of(algorithm).slow else [4] * 8:
        search.begin(count, loss=lambda number: float(number % 5))
    assert search.trials
    for trial in search.trials:
        for parameter in search.space.parameters:
            assert feasible(parameter, trial.assignments[parameter.name]), parameter


endings = st.sampled_from(["running", "failed", "ended", "stopped"])
losses = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("algorithm", SEARCH_SPACES)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_whatever_became_of_the_trials_it_goes_on(algorithm: str, data: st.DataObject) -> None:
    needs = needs_of(algorithm)
    fitting = [parameter for parameter in (*EVERYTHING, STEPPED) if needs.fits(parameter)]
    space = space_for(algorithm, *data.draw(st.lists(st.sampled_from(fitting), min_size=1, max_size=4, unique=True)))
    search = validated(algorithm, space)
    for count in data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=2 if needs.slow else 5)):
        again = replace(search, trials=list(search.trials), state=dict(search.state))
        before = {search.searched.key(trial.point) for trial in search.trials}
        begun = search.begin(count)
        keys = [search.searched.key(point) for point in begun]
        if needs.seeded or algorithm == "grid":
            # Another replica, or this one after a restart, says the same.
            assert [again.read(suggestion) for suggestion in again.ask(count).suggestions] == begun
        if needs.unique:
            assert len(set(keys)) == len(keys)
            assert not before & set(keys)
            assert len(keys) == min(count, (space.size() or math.inf) - len(before))
        for number in range(len(search.trials) - len(begun), len(search.trials)):
            trial, ending, loss = search.trials[number], data.draw(endings), data.draw(losses)
            ended = ending in {"ended", "stopped"}
            search.trials[number] = replace(
                trial,
                loss=loss if ended else None,
                running=ending == "running",
                stopped=ending == "stopped",
                reports=((1.0, loss),) if ended else (),
            )


@pytest.mark.parametrize("algorithm", SEEDED)
def test_another_seed_has_another_answer(algorithm: str) -> None:
    answers = set()
    for seed in range(5):
        search = validated(algorithm, space_for(algorithm), seed=seed)
        search.begin(2, loss=float)
        answers.add(tuple(search.begin(1)))
    assert len(answers) == 5


@pytest.mark.parametrize("algorithm", UNIQUE)
def test_every_point_comes_once_and_then_none(algorithm: str) -> None:
    space = space_for(algorithm, *SMALL)
    search = validated(algorithm, space)
    while search.begin(10 if needs_of(algorithm).slow else 4, loss=float):
        assert len(search.trials) <= (space.size() or 0)
    assert not search.ask(1).wait
    every = itertools.product(*([p.format(p.at(i)) for i in range(p.count() or 0)] for p in space.parameters))
    assert sorted(space.key(trial.point) for trial in search.trials) == sorted(every)


@pytest.mark.parametrize("algorithm", UNIQUE)
def test_trials_that_run_at_once_differ(algorithm: str) -> None:
    search = validated(algorithm, space_for(algorithm, made("n", "int", "1", "30")))
    search.begin(3, loss=float)
    for _ in range(3):
        search.begin(2)
    assert len({trial.point for trial in search.trials}) == 9


@pytest.mark.parametrize("algorithm", UNIQUE)
def test_failed_trials_are_not_tried_again(algorithm: str) -> None:
    space = space_for(algorithm, made("n", "int", "1", "8"))
    search = validated(algorithm, space)
    size = space.size() or 0
    failed = set(search.begin(size - 2, loss=lambda number: None))
    rest = search.begin(size, loss=float)
    assert len(failed) == size - 2 and len(rest) == 2
    assert not failed & set(rest)


@pytest.mark.parametrize("values", [[5.0] * 4, [1e308, -1e308, 0.0, 1.0], [1e300, 1.0, 2.0, 3.0], [1e-300, 0, 0, 0]])
@pytest.mark.parametrize("algorithm", UNIQUE)
def test_whatever_was_reported_it_goes_on(algorithm: str, values: list[float]) -> None:
    search = validated(algorithm, space_for(algorithm, STEPPED))
    assert len(search.begin(4, loss=lambda number: values[number])) == 4
    assert len(search.begin(1)) == 1


@pytest.mark.parametrize("algorithm", UNIQUE)
def test_trials_of_earlier_experiments_do_not_count(algorithm: str) -> None:
    """They may teach something, even where nothing was made yet; what they tried may be tried again."""
    space = space_for(algorithm, *SMALL)
    earlier = validated(algorithm, space)
    earlier.begin(space.size() or 0, loss=float)
    search = validated(algorithm, space, prior=[replace(trial, labels={}) for trial in earlier.trials])
    assert len(search.begin(space.size() or 0)) == space.size()


@pytest.mark.parametrize("algorithm", UNIQUE)
def test_points_off_the_steps_are_coped_with(algorithm: str) -> None:
    """Somebody else made the trial, or the space was edited since."""
    search = validated(algorithm, space_for(algorithm, STEPPED))
    fixed = tuple(parameter.at(0) for parameter in search.space.parameters[:-1])
    search.trials = [Observed((*fixed, 0.123456), 1.0), Observed((*fixed, 0.123456), 2.0)]
    assert len(set(search.begin(2))) == 2


@pytest.mark.parametrize("algorithm", SEARCH_SPACES)
def test_nothing_asked_is_nothing_answered(algorithm: str) -> None:
    assert validated(algorithm, space_for(algorithm)).begin(0) == []


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "darts"])  # whose trials may know more
def test_unknown_settings_are_refused(algorithm: str) -> None:
    needs = needs_of(algorithm)
    space = Space(()) if needs.nas is not None else space_for(algorithm)
    question = replace(Search(algorithm, space).question, settings={**needs.settings, "temperature": "1"})
    with pytest.raises(InvalidArgument, match="temperature"):
        ALGORITHMS[algorithm].validate(question)


def bad_settings() -> Sequence[tuple[str, Mapping[str, str], str]]:
    return [(name, {"random_state": value}, "random_state") for name in SEEDED for value in ("-1", "x", "1.5")]


@pytest.mark.parametrize(("algorithm", "chosen", "name"), bad_settings())
def test_a_random_state_is_a_whole_number(algorithm: str, chosen: Mapping[str, str], name: str) -> None:
    question = Search(algorithm, space_for(algorithm), seed=None).question
    with pytest.raises(InvalidArgument, match=name) as caught:
        ALGORITHMS[algorithm].validate(replace(question, settings={**question.settings, **chosen}))
    assert caught.value.violations[0][0] == f"algorithmSettings.{name}"
