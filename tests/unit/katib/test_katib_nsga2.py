"""nsga2: several objectives, constraints, and every kind of parameter."""

import statistics
from collections.abc import Callable, Sequence

import pytest
from mlmesh_katib.algorithms import ALGORITHMS, Observed, Question, ask
from mlmesh_katib.pareto import hypervolume, pareto_front
from mlmesh_katib.space import Space, Value, make_space
from mlmesh_kit.errors import InvalidArgument
from unit.katib.algorithm_needs import listed, made

CUBE = make_space([made(f"x{n}", "double", "0", "1") for n in range(5)], "p")
Outcome = tuple[tuple[float, ...], float]


def zdt1(point: Sequence[Value]) -> Outcome:
    """E. Zitzler, K. Deb, L. Thiele (2000): its front is 1 - sqrt(x0), with all others at 0."""
    x = [float(value) for value in point]
    g = 1 + 9 * statistics.fmean(x[1:])
    return (x[0], g * (1 - (x[0] / g) ** 0.5)), 0.0


def bounded(point: Sequence[Value]) -> Outcome:
    """The same, where less than 0.4 of the first is forbidden."""
    losses, _ = zdt1(point)
    return losses, max(0.0, 0.4 - losses[0])


def run(name: str, space: Space, outcome: Callable[[Sequence[Value]], Outcome], trials: int, **settings: str) -> list:
    done: list[Observed] = []
    objectives = len(outcome(next(iter_points(space)))[0])
    ALGORITHMS[name].validate(Question(space, settings, (), objectives=objectives))
    while len(done) < trials:
        question = Question(space, settings, tuple(done), made=len(done), objectives=objectives)
        for suggestion in ask(ALGORITHMS[name], question, 5).suggestions:
            point = space.parse(suggestion.assignments)
            assert point is not None
            losses, violation = outcome(point)
            done.append(Observed(point, losses[0], losses=losses, violation=violation))
    return done


def iter_points(space: Space):
    return iter([tuple(parameter.default() for parameter in space.parameters)])


def area(trials: Sequence[Observed]) -> float:
    return hypervolume([trial.losses for trial in trials if not trial.violation], (1.1, 6.0))


def test_it_comes_nearer_to_the_front_than_chance() -> None:
    for outcome, least in ((zdt1, 0.5), (bounded, 0.3)):
        found, chance = (
            [area(run(name, CUBE, outcome, 150, random_state=str(seed))) for seed in range(3)]
            for name in ("nsga2", "random")
        )
        assert min(found) > max(chance)
        assert statistics.median(found) > statistics.median(chance) + least


def test_it_learns_to_keep_the_constraints() -> None:
    trials = run("nsga2", CUBE, bounded, 150, random_state="1")
    kept = [not trial.violation for trial in trials]
    assert sum(kept[-50:]) > sum(kept[:50]) and sum(kept[-50:]) > 40
    assert len(pareto_front([t.losses for t in trials], [t.violation for t in trials])) > 3


def test_every_kind_of_parameter_evolves() -> None:
    space = make_space(
        [
            listed("c", "categorical", "bad", "good", "worse"),
            made("n", "int", "0", "30"),
            listed("d", "discrete", "1", "2", "4", "8"),
            made("log", "double", "1e-4", "1", distribution="logUniform"),
            made("step", "double", "0", "1", "0.1"),
        ],
        "p",
    )

    def outcome(point: Sequence[Value]) -> Outcome:
        c, n, d, log, step = point
        cost = {"good": 0.0, "bad": 3.0, "worse": 6.0}[str(c)] + abs(float(n) - 20) / 5 + float(step)
        return (cost + float(log), cost + 1 / float(d)), 0.0

    trials = run("nsga2", space, outcome, 200, random_state="2")
    assert len({trial.point for trial in trials}) == 200
    late = trials[-60:]
    assert sum(trial.point[0] == "good" for trial in late) > 40
    assert sum(abs(float(trial.point[1]) - 20) <= 5 for trial in late) > 40
    assert min(sum(trial.losses) for trial in late) < min(sum(trial.losses) for trial in trials[:20])


def test_one_objective_will_do_and_trials_without_all_objectives_are_no_parents() -> None:
    found, chance = (
        min(t.loss for t in run(name, CUBE, lambda point: ((sum(map(float, point)),), 0.0), 100, random_state="1"))
        for name in ("nsga2", "random")
    )
    assert found < 0.6 * chance
    half = [Observed(tuple([n / 10] * 5), float(n)) for n in range(10)]
    question = Question(CUBE, {"population_size": "4", "random_state": "1"}, half, made=10, objectives=2)
    ten = ask(ALGORITHMS["nsga2"], question, 10).suggestions
    assert len({tuple(suggestion.assignments.values()) for suggestion in ten}) == 10


def test_trials_of_earlier_experiments_are_parents() -> None:
    prior = [Observed(tuple([0.5 + n / 1000] * 5), float(n), losses=(float(n), -float(n))) for n in range(20)]
    question = Question(CUBE, {"random_state": "1", "mutation_prob": "0"}, (), prior=prior, objectives=2)
    for suggestion in ask(ALGORITHMS["nsga2"], question, 8).suggestions:
        assert all(0.45 < float(value) < 0.57 for value in suggestion.assignments.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("population_size", "1"),
        ("population_size", "x"),
        ("crossover_prob", "1.5"),
        ("mutation_prob", "-0.1"),
        ("crossover_eta", "0"),
        ("mutation_eta", "inf"),
    ],
)
def test_bad_settings_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ALGORITHMS["nsga2"].validate(Question(CUBE, {name: value}, ()))
    assert caught.value.violations[0][0] == f"algorithmSettings.{name}"
