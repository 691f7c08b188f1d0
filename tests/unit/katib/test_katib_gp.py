"""The Gaussian-process optimiser: its parts beside independent computations, and what it finds."""

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_katib.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, Observed, Question
from mlmesh_katib.algorithms.gp.acquisition import log_improvement, log_improvement_slopes
from mlmesh_katib.algorithms.gp.axes import axes_of
from mlmesh_katib.algorithms.gp.model import Array, Likelihood, Parameters, Posterior, first_guesses, fit
from mlmesh_katib.algorithms.gp.warp import warps
from mlmesh_katib.algorithms.unit import to_unit
from mlmesh_katib.space import Space, Value, make_space
from mlmesh_kit.errors import InvalidArgument
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern
from unit.katib.algorithm_needs import listed, made

SPACE = make_space(
    [
        made("rate", "double", "1e-4", "1", distribution="logUniform"),
        made("width", "double", "-2", "2"),
        made("layers", "int", "1", "6"),
        listed("kind", "categorical", "a", "b", "c"),
    ],
    "parameters",
)
ONLY_CATEGORIES = make_space([listed(name, "categorical", *"abcdef") for name in ("p", "q", "r")], "parameters")
ORDERED = np.zeros(3, dtype=bool)
THETA = np.log([0.3, 0.8, 1.7, 1.4, 1e-3])


def data(count: int, dimensions: int = 3, seed: int = 5) -> tuple[Array, Array]:
    source = np.random.default_rng(seed)
    points = source.random((count, dimensions))
    values = np.sin(5 * points[:, 0]) + points[:, 1] ** 2 + 0.1 * source.standard_normal(count)
    return points, (values - values.mean()) / values.std()


def objective(point: Sequence[Value]) -> float:
    rate, width, layers, kind = point
    off = {"a": 0.4, "b": 0.0, "c": 1.0}[str(kind)]
    return (math.log10(float(rate)) + 2) ** 2 + (float(width) - 0.7) ** 2 + abs(int(layers) - 4) / 2 + off


def search(
    space: Space, loss: Callable[[Sequence[Value]], float | None], count: int, seed: int = 0, **chosen: str
) -> list[Observed]:
    trials: list[Observed] = []
    while len(trials) < count:
        question = Question(space, {"random_state": str(seed), **chosen}, trials, made=len(trials))
        (point,) = suggest(question, 1)
        trials.append(Observed(point, loss(point)))
    return trials


def suggest(question: Question, count: int) -> list[tuple[Value, ...]]:
    found = [space_point(question.space, s.assignments) for s in ALGORITHMS["gp"].answer(question, count).suggestions]
    assert len(set(found)) == count
    return found


def space_point(space: Space, assignments: Sequence[tuple[str, str]] | dict[str, str]) -> tuple[Value, ...]:
    point = space.parse(dict(assignments))
    assert point is not None
    return point


def best(trials: Sequence[Observed]) -> float:
    return min(trial.loss for trial in trials if trial.loss is not None)


def test_it_is_the_default() -> None:
    assert DEFAULT_ALGORITHM == "gp"


@pytest.mark.parametrize("categorical", [[False, False, False], [False, True, False]])
def test_the_likelihoods_gradient_is_right(categorical: list[bool]) -> None:
    points, values = data(15)
    unordered = np.array(categorical)
    points[:, unordered] = np.floor(points[:, unordered] * 3) / 3
    likelihood = Likelihood(points, unordered)
    for theta in (THETA, THETA + 0.4, *first_guesses(3)):
        numeric = approx_fprime(theta, lambda t: likelihood(t, values)[0], 1e-6)
        np.testing.assert_allclose(likelihood(theta, values)[1], numeric, rtol=1e-3, atol=1e-3)


def test_the_posterior_is_scikit_learns() -> None:
    points, values = data(20)
    asked, _ = data(7, seed=9)
    posterior = Posterior(points, values, ORDERED, Parameters(THETA))
    mean, deviation = posterior.at(asked)
    matern = ConstantKernel(math.exp(THETA[3])) * Matern(np.exp(THETA[:3]), nu=2.5)
    noise = math.exp(THETA[4])
    # A mean that is about 0 by a normal distribution is a constant that is added to the kernel.
    with_mean = GaussianProcessRegressor(matern + ConstantKernel(1.0), alpha=noise, optimizer=None).fit(points, values)
    np.testing.assert_allclose(mean, with_mean.predict(asked), rtol=1e-5, atol=1e-5)
    without = GaussianProcessRegressor(matern, alpha=noise, optimizer=None).fit(points, values)
    np.testing.assert_allclose(deviation, without.predict(asked, return_std=True)[1], rtol=1e-5, atol=1e-5)


def test_noise_is_told_from_what_matters() -> None:
    points, values = data(60)
    fits = [fit(points, values, ORDERED, start, 60) for start in first_guesses(3)]
    theta, _ = min(fits, key=lambda found: found[1])
    scales = np.exp(theta[:3])
    assert scales[2] > 3 * scales[0]
    assert 0.003 < Parameters(theta).noise < 0.05  # 0.01 by the square of the spread


def test_the_slopes_of_posterior_and_improvement_are_right() -> None:
    points, values = data(20)
    posterior = Posterior(points, values, ORDERED, Parameters(THETA))
    for point in data(5, seed=11)[0]:
        _, _, mean_slope, deviation_slope = posterior.slopes(point[None])
        for index, slope in enumerate((mean_slope, deviation_slope)):
            numeric = approx_fprime(point, lambda x, i=index: float(posterior.at(x[None])[i][0]), 1e-6)
            np.testing.assert_allclose(slope[0], numeric, rtol=1e-3, atol=1e-4)
        for level in (values.min(), values.min() - 30.0):  # far below, the improvement itself is 0 in floating point
            value, slope = log_improvement_slopes(posterior, level, point[None])
            numeric = approx_fprime(point, lambda x, b=level: float(log_improvement(posterior, b, x[None])[0]), 1e-6)
            np.testing.assert_allclose(slope[0], numeric, rtol=2e-3, atol=1e-2)
            np.testing.assert_allclose(value, log_improvement(posterior, level, point[None]), rtol=1e-6)


def test_the_improvement_is_its_integral() -> None:
    points, values = data(20)
    posterior = Posterior(points, values, ORDERED, Parameters(THETA))
    asked = data(6, seed=3)[0]
    for level in (-1.5, 0.0, 2.0):
        found = log_improvement(posterior, level, asked)
        for value, mean, deviation in zip(found, *posterior.at(asked), strict=True):
            integral, _ = quad(
                lambda y, m=mean, d=deviation, b=level: (b - y) * norm.pdf(y, m, d), mean - 12 * deviation, level
            )
            assert value == pytest.approx(math.log(integral), abs=1e-4)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_every_scale_keeps_the_order(losses: list[float]) -> None:
    values = np.array(losses)
    order = np.argsort(values, kind="stable")
    for warp in warps(values):
        assert np.isfinite(warp.values).all()
        assert math.isfinite(warp.log_jacobian)
        assert (np.diff(warp.values[order]) >= 0).all()
        assert abs(warp.values.mean()) < 1e-6
        assert warp.values.std() < 1 + 1e-6


def test_cells_are_kept() -> None:
    axes = axes_of(SPACE)
    assert axes.free.tolist() == [True, True, False, False]
    assert axes.categorical.tolist() == [False, False, False, True]
    points = np.random.default_rng(0).random((50, 4))
    np.testing.assert_allclose(axes.settle(axes.snap(points)), axes.snap(points), atol=1e-9)


def test_it_finds_the_best_of_a_mixed_space() -> None:
    """Chance is at 0.69 after as many trials, in the median of 200 seeds."""
    assert statistics.median(best(search(SPACE, objective, 35, seed)) for seed in range(3)) < 0.02


def test_it_finds_the_best_combination_of_categories() -> None:
    def loss(point: Sequence[Value]) -> float:
        return float(
            sum((ord(str(letter)) - ord("a")) * weight for letter, weight in zip(point, (1, 2, 3), strict=True))
        )

    assert best(search(ONLY_CATEGORIES, loss, 40)) == 0.0


def test_the_same_question_has_the_same_answer_on_any_replica() -> None:
    trials = search(SPACE, objective, 14)
    question = Question(SPACE, {"random_state": "0"}, trials, made=len(trials))
    assert suggest(question, 3) == suggest(question, 3)
    assert suggest(question, 3) != suggest(Question(SPACE, {"random_state": "1"}, trials, made=len(trials)), 3)


def test_trials_that_run_send_others_elsewhere() -> None:
    trials = search(SPACE, objective, 20)
    (first,) = suggest(Question(SPACE, {"random_state": "0"}, trials, made=20), 1)
    running = [*trials, Observed(first, None, running=True)]
    (second,) = suggest(Question(SPACE, {"random_state": "0"}, running, made=20), 1)
    assert second != first


def test_where_there_is_noise_trials_that_run_are_not_made_twice() -> None:
    noise = np.random.default_rng(2)
    trials = search(SPACE, lambda point: objective(point) + float(noise.normal(0, 0.5)), 25)
    points = suggest(Question(SPACE, {"random_state": "0"}, trials, made=25), 8)
    units = to_unit(SPACE, points)
    apart = np.abs(units[:, None, :] - units[None, :, :]).max(axis=2)
    assert (apart + np.eye(8) > 0.005).all()


def test_where_trials_fail_it_does_not_stay() -> None:
    def loss(point: Sequence[Value]) -> float | None:
        return None if float(point[1]) > 0 else objective(point)

    trials = search(SPACE, loss, 30)
    assert sum(trial.loss is None for trial in trials[15:]) <= 7
    assert best(trials) < 1.5


@pytest.mark.parametrize("scale", [1e-300, 1e300, 0.0])
def test_losses_of_any_size_are_looked_at(scale: float) -> None:
    trials = search(SPACE, lambda point: scale * objective(point), 15)
    assert len({trial.point for trial in trials}) == 15


def test_many_trials_are_thinned_out() -> None:
    source = np.random.default_rng(1)
    points = {
        (
            10 ** source.uniform(-4, 0),
            source.uniform(-2, 2),
            int(source.integers(1, 7)),
            str(source.choice(list("abc"))),
        )
        for _ in range(1200)
    }
    trials = [Observed(point, objective(point)) for point in sorted(points)]
    (point,) = suggest(Question(SPACE, {"random_state": "0"}, trials, made=len(trials)), 1)
    assert objective(point) < 0.3


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "100001"])
def test_settings_are_checked(value: str) -> None:
    with pytest.raises(InvalidArgument, match="n_initial_points"):
        ALGORITHMS["gp"].validate(Question(SPACE, {"n_initial_points": value}, [], made=0))
