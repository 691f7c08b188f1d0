"""Spaces with parameters that exist only where another one has certain values."""

import itertools

import pytest
from mlmesh_katib.activation import Activation, in_order
from mlmesh_katib.algorithms import ALGORITHMS, Observed, Question, ask
from mlmesh_katib.space import Space, make_space
from unit.katib.algorithm_needs import CONDITIONAL, UNIQUE, listed, made, needs_of

MODEL = listed("model", "categorical", "svm", "trees", "none")
KERNEL = listed("kernel", "categorical", "rbf", "poly")
DEGREE = made("degree", "int", "2", "4")
DEPTH = made("depth", "int", "1", "5")


def space() -> Space:
    """Of 1 + 5 + (1 + 3) points; a child comes before its parent, and one has a child itself."""
    rules = (Activation(0, 1, frozenset({"poly"})), Activation(1, 3, frozenset({"svm"})))
    rules += (Activation(2, 3, frozenset({"trees"})),)
    return make_space([DEGREE, KERNEL, DEPTH, MODEL], "parameters", in_order(rules) or ())


def test_points_are_those_that_differ_in_something_active() -> None:
    points = list(space().points())
    assert len(points) == len(set(points)) == space().size() == 10
    assert [space().assignments(point) for point in points[:4]] == [
        {"kernel": "rbf", "model": "svm"},
        {"degree": "2", "kernel": "poly", "model": "svm"},
        {"degree": "3", "kernel": "poly", "model": "svm"},
        {"degree": "4", "kernel": "poly", "model": "svm"},
    ]
    assert space().assignments(points[-1]) == {"model": "none"}
    everything = itertools.product(*([p.at(i) for i in range(p.count() or 0)] for p in space().parameters))
    assert {space().canonical(point) for point in everything} == set(points)


def test_points_that_differ_in_nothing_active_are_one() -> None:
    one, other = (2, "poly", 1, "trees"), (4, "rbf", 1, "trees")
    assert space().canonical(one) == space().canonical(other)
    assert space().key(one) == space().key(other)
    assert space().assignments(one) == {"depth": "1", "model": "trees"}


def test_what_is_not_active_need_not_be_told() -> None:
    assert space().parse({"model": "none"}) == space().parse({"model": "none", "depth": "4", "kernel": "?"})
    point = space().parse({"model": "svm", "kernel": "poly", "degree": "3"})
    assert point is not None and space().parse(space().assignments(point)) == point
    assert space().parse({"model": "svm", "kernel": "poly"}) is None  # the degree is active
    assert space().parse({"model": "svm"}) is None
    assert dict(space().with_blanks({"model": "none"})) == {"model": "none", "kernel": "", "degree": "", "depth": ""}


def test_the_size_is_counted_without_walking() -> None:
    wide = made("n", "int", "0", "9007199254740992")
    rules = (Activation(1, 0, frozenset({3})),)
    assert make_space([wide, DEPTH], "parameters", rules).size() == 2**53 + 5
    assert make_space([wide, made("x", "double", "0", "1")], "parameters", rules).size() is None


def test_parameters_in_a_circle_have_no_order() -> None:
    assert in_order((Activation(0, 1, frozenset({1})), Activation(1, 0, frozenset({1})))) is None


def begin(name: str, where: Space, trials: list[Observed], count: int) -> list[dict[str, str]]:
    needs = needs_of(name)
    settings = {**needs.settings, **({"random_state": "3"} if needs.seeded else {})}
    question = Question(where, settings, tuple(trials), made=len(trials), parallel=needs.parallel)
    ALGORITHMS[name].validate(question)
    found = [dict(suggestion.assignments) for suggestion in ask(ALGORITHMS[name], question, count).suggestions]
    assert found == [dict(suggestion.assignments) for suggestion in ask(ALGORITHMS[name], question, count).suggestions]
    for assignments in found:
        point = where.parse(assignments)
        assert point is not None and where.assignments(point) == assignments
        trials.append(Observed(point, float(len(trials) % 3), assignments=assignments))
    return found


@pytest.mark.parametrize("name", [name for name in UNIQUE if not needs_of(name).slow])
def test_every_algorithm_gives_each_combination_once(name: str) -> None:
    needs = needs_of(name)
    rules = [Activation(r.child, r.parent, r.values) for r in space().activations]
    where = make_space([*space().parameters, *needs.parameters], "parameters", rules)
    trials: list[Observed] = []
    while begin(name, where, trials, 12):
        pass
    assert len(trials) == len({trial.point for trial in trials}) == where.size()


@pytest.mark.parametrize("name", [name for name in CONDITIONAL if needs_of(name).fits(made("x", "double", "0", "1"))])
def test_every_algorithm_searches_what_is_active(name: str) -> None:
    needs = needs_of(name)
    rules = (Activation(1, 0, frozenset({"svm"})), Activation(2, 0, frozenset({"trees"})))
    where = make_space([MODEL, made("c", "double", "0", "1"), DEPTH, *needs.parameters], "parameters", rules)
    trials: list[Observed] = []
    for count in (6, 1, 3):
        assert len(begin(name, where, trials, count)) == count
    names = {frozenset(trial.assignments) - {p.name for p in needs.parameters} for trial in trials}
    assert names <= {frozenset({"model"}), frozenset({"model", "c"}), frozenset({"model", "depth"})}
    assert len(names) > 1
