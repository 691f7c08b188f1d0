"""Runs one optimiser on one function, for several seeds.

`python -m bench.tuning_optimisers OPTIMISER FUNCTION TOLD TRIALS SEED...` prints a line of JSON for each seed: the
losses in their order and the seconds of each suggestion. TOLD points at random are told to the optimiser before it is
asked. Ours needs mlmesh_katib, the others their own packages; nothing else is imported, so that each can run in an
environment of its own.
"""

import json
import random
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from bench.tuning_functions import FUNCTIONS, Axis, Function

Steps = Iterator[tuple[float, float]]
Told = Sequence[tuple[dict[str, Any], float]]


def with_mlmesh(algorithm: str, function: Function, told: Told, trials: int, seed: int) -> Steps:
    from mlmesh_katib.algorithms import ALGORITHMS, Observed, Question, ask
    from mlmesh_katib.space import make_parameter, make_space

    def parameter(axis: Axis) -> Any:
        kind = {"log": "double"}.get(axis.kind, axis.kind)
        bounds = ("", "") if axis.choices else (str(axis.low), str(axis.high))
        if kind == "int":
            bounds = (str(int(axis.low)), str(int(axis.high)))
        return make_parameter(
            axis.name, kind, low=bounds[0], high=bounds[1], step="", values=axis.choices,
            distribution="logUniform" if axis.kind == "log" else "", field="parameters",
        )  # fmt: skip

    space = make_space([parameter(axis) for axis in function.axes], "parameters")
    names = [axis.name for axis in function.axes]
    known = [Observed(tuple(point[name] for name in names), loss) for point, loss in told]
    for _ in range(trials):
        begun = time.perf_counter()
        question = Question(space, {"random_state": str(seed)}, known, made=len(known))
        (suggestion,) = ask(ALGORITHMS[algorithm], question, 1).suggestions
        took = time.perf_counter() - begun
        point = space.parse(suggestion.assignments)
        assert point is not None
        loss = function.call(dict(zip(names, point, strict=True)))
        known.append(Observed(point, loss))
        yield loss, took


def with_optuna(sampler: Any, function: Function, told: Told, trials: int) -> Steps:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)

    def distribution(axis: Axis) -> Any:
        if axis.kind == "categorical":
            return CategoricalDistribution(axis.choices)
        if axis.kind == "int":
            return IntDistribution(int(axis.low), int(axis.high))
        return FloatDistribution(axis.low, axis.high, log=axis.kind == "log")

    distributions = {axis.name: distribution(axis) for axis in function.axes}
    for point, loss in told:
        study.add_trial(optuna.trial.create_trial(params=point, distributions=distributions, value=loss))

    def suggest(trial: Any, axis: Axis) -> Any:
        if axis.kind == "categorical":
            return trial.suggest_categorical(axis.name, axis.choices)
        if axis.kind == "int":
            return trial.suggest_int(axis.name, int(axis.low), int(axis.high))
        return trial.suggest_float(axis.name, axis.low, axis.high, log=axis.kind == "log")

    for _ in range(trials):
        begun = time.perf_counter()
        trial = study.ask()
        point = {axis.name: suggest(trial, axis) for axis in function.axes}
        took = time.perf_counter() - begun
        loss = function.call(point)
        begun = time.perf_counter()
        study.tell(trial, loss)
        yield loss, took + time.perf_counter() - begun


def optuna_sampler(name: str, seed: int) -> Any:
    import optuna

    return {
        "optuna-gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "optuna-tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "optuna-cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed),
    }[name]()


def with_skopt(function: Function, told: Told, trials: int, seed: int) -> Steps:
    import skopt
    from skopt.space import Categorical, Integer, Real

    def dimension(axis: Axis) -> Any:
        if axis.kind == "categorical":
            return Categorical(list(axis.choices))
        if axis.kind == "int":
            return Integer(int(axis.low), int(axis.high))
        return Real(axis.low, axis.high, prior="log-uniform" if axis.kind == "log" else "uniform")

    optimiser = skopt.Optimizer([dimension(a) for a in function.axes], base_estimator="GP", random_state=seed)
    if told:
        optimiser.tell([[point[axis.name] for axis in function.axes] for point, _ in told], [loss for _, loss in told])
    for _ in range(trials):
        begun = time.perf_counter()
        asked = optimiser.ask()
        took = time.perf_counter() - begun
        loss = function.call({axis.name: value for axis, value in zip(function.axes, asked, strict=True)})
        begun = time.perf_counter()
        optimiser.tell(asked, loss)
        yield loss, took + time.perf_counter() - begun


def draw(function: Function, source: random.Random) -> dict[str, Any]:
    def one(axis: Axis) -> Any:
        if axis.kind == "categorical":
            return source.choice(axis.choices)
        if axis.kind == "int":
            return source.randint(int(axis.low), int(axis.high))
        if axis.kind == "log":
            return axis.low * (axis.high / axis.low) ** source.random()
        return source.uniform(axis.low, axis.high)

    return {axis.name: one(axis) for axis in function.axes}


def with_random(function: Function, trials: int, seed: int) -> Steps:
    source = random.Random(seed)
    for _ in range(trials):
        begun = time.perf_counter()
        point = draw(function, source)
        yield function.call(point), time.perf_counter() - begun


def steps(optimiser: str, function: Function, told: Told, trials: int, seed: int) -> Steps:
    if optimiser == "random":
        return with_random(function, trials, seed)
    if optimiser == "skopt-gp":
        return with_skopt(function, told, trials, seed)
    if optimiser.startswith("optuna-"):
        return with_optuna(optuna_sampler(optimiser, seed), function, told, trials)
    return with_mlmesh(optimiser.removeprefix("mlmesh-"), function, told, trials, seed)


def main(optimiser: str, function: str, told: int, trials: int, seeds: list[int]) -> None:
    warnings.simplefilter("ignore")
    for seed in seeds:
        source = random.Random(seed)
        points = [draw(FUNCTIONS[function], source) for _ in range(told)]
        before = [(point, FUNCTIONS[function].call(point)) for point in points]
        found = list(steps(optimiser, FUNCTIONS[function], before, trials, seed))
        losses, seconds = zip(*found, strict=True)
        line = {"optimiser": optimiser, "function": function, "seed": seed, "told": told}
        print(json.dumps({**line, "losses": losses, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), [int(seed) for seed in sys.argv[5:]])
