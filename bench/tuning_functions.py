"""What optimisers are measured with: functions of which the best value is known, and two real models."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Axis:
    name: str
    kind: str  # double, log, int, categorical
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Function:
    name: str
    axes: tuple[Axis, ...]
    call: Callable[[Mapping[str, Any]], float]
    best: float = 0.0
    log: bool = False
    unseen: bool = False
    """Not looked at while the optimiser was built."""


def doubles(count: int, low: float, high: float) -> tuple[Axis, ...]:
    return tuple(Axis(f"x{number}", "double", low, high) for number in range(count))


def values(point: Mapping[str, Any], count: int) -> list[float]:
    return [float(point[f"x{number}"]) for number in range(count)]


def branin(point: Mapping[str, Any]) -> float:
    x, y = float(point["x"]), float(point["y"])
    inner = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return inner**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


A6 = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
P6 = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def hartmann6(point: Mapping[str, Any]) -> float:
    x = values(point, 6)
    weights = (1.0, 1.2, 3.0, 3.2)
    return -sum(
        w * math.exp(-sum(a * (u - p) ** 2 for a, u, p in zip(row, x, centre, strict=True)))
        for w, row, centre in zip(weights, A6, P6, strict=True)
    )


def ackley(x: list[float]) -> float:
    mean = sum(u * u for u in x) / len(x)
    waves = sum(math.cos(2 * math.pi * u) for u in x) / len(x)
    return -20 * math.exp(-0.2 * math.sqrt(mean)) - math.exp(waves) + 20 + math.e


def mixed_ackley(point: Mapping[str, Any]) -> float:
    shift = {"a": 0.0, "b": 1.0, "c": 2.0, "d": -1.0}[point["c"]]
    return ackley([*values(point, 3), float(point["n"]), shift])


def rosenbrock(point: Mapping[str, Any]) -> float:
    x = values(point, 4)
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(x))


def levy(point: Mapping[str, Any]) -> float:
    w = [1 + (u - 1) / 4 for u in values(point, 4)]
    middle = sum((u - 1) ** 2 * (1 + 10 * math.sin(math.pi * u + 1) ** 2) for u in w[:-1])
    return math.sin(math.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)


def styblinski_tang(point: Mapping[str, Any]) -> float:
    return sum(u**4 - 16 * u * u + 5 * u for u in values(point, 4)) / 2


def six_hump_camel(point: Mapping[str, Any]) -> float:
    x, y = values(point, 2)
    return (4 - 2.1 * x * x + x**4 / 3) * x * x + x * y + (-4 + 4 * y * y) * y * y


def goldstein_price(point: Mapping[str, Any]) -> float:
    x, y = values(point, 2)
    first = 1 + (x + y + 1) ** 2 * (19 - 14 * x + 3 * x * x - 14 * y + 6 * x * y + 3 * y * y)
    second = 30 + (2 * x - 3 * y) ** 2 * (18 - 32 * x + 12 * x * x + 48 * y - 36 * x * y + 27 * y * y)
    return first * second


def zakharov(point: Mapping[str, Any]) -> float:
    x = values(point, 5)
    sloped = sum(0.5 * (number + 1) * u for number, u in enumerate(x))
    return sum(u * u for u in x) + sloped**2 + sloped**4


def dixon_price(point: Mapping[str, Any]) -> float:
    x = values(point, 4)
    return (x[0] - 1) ** 2 + sum((n + 2) * (2 * b * b - a) ** 2 for n, (a, b) in enumerate(itertools.pairwise(x)))


@cache
def _digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    features, labels = load_digits(return_X_y=True)
    return features[:600] / 16.0, labels[:600]


def svm(point: Mapping[str, Any]) -> float:
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    gamma = float(point["gamma"])
    model = SVC(C=float(point["C"]), gamma=gamma, kernel=point["kernel"], degree=int(point["degree"]))
    return 1.0 - float(cross_val_score(model, *_digits(), cv=3).mean())


def boosting(point: Mapping[str, Any]) -> float:
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.model_selection import cross_val_score

    features, target = load_diabetes(return_X_y=True)
    model = GradientBoostingRegressor(
        learning_rate=float(point["rate"]),
        n_estimators=int(point["trees"]),
        max_depth=int(point["depth"]),
        subsample=float(point["subsample"]),
        min_samples_leaf=int(point["leaf"]),
        random_state=0,
    )
    return -float(cross_val_score(model, features, target, cv=3, scoring="r2").mean())


FUNCTIONS = {
    function.name: function
    for function in (
        Function("branin", (Axis("x", "double", -5, 10), Axis("y", "double", 0, 15)), branin, 0.39788735772973816),
        Function("hartmann6", doubles(6, 0, 1), hartmann6, -3.322368011415515),
        Function(
            "mixed-ackley",
            (*doubles(3, -32.768, 32.768), Axis("n", "int", -10, 10), Axis("c", "categorical", choices=tuple("abcd"))),
            mixed_ackley,
        ),
        Function("rosenbrock4", doubles(4, -5, 10), rosenbrock, log=True),
        Function("levy4", doubles(4, -10, 10), levy),
        Function("styblinski-tang4", doubles(4, -5, 5), styblinski_tang, -156.66466281508563),
        Function(
            "six-hump-camel",
            (Axis("x0", "double", -3, 3), Axis("x1", "double", -2, 2)),
            six_hump_camel,
            -1.0316284534898774,
        ),
        Function("goldstein-price", doubles(2, -2, 2), goldstein_price, 3.0, log=True, unseen=True),
        Function("zakharov5", doubles(5, -5, 10), zakharov, log=True, unseen=True),
        Function("dixon-price4", doubles(4, -10, 10), dixon_price, log=True, unseen=True),
        Function(
            "svm",
            (
                Axis("C", "log", 1e-3, 1e3),
                Axis("gamma", "log", 1e-4, 10),
                Axis("degree", "int", 2, 5),
                Axis("kernel", "categorical", choices=("rbf", "poly", "sigmoid")),
            ),
            svm,
            unseen=True,
        ),
        Function(
            "boosting",
            (
                Axis("rate", "log", 0.005, 0.5),
                Axis("trees", "int", 10, 150),
                Axis("depth", "int", 1, 6),
                Axis("subsample", "double", 0.4, 1.0),
                Axis("leaf", "int", 1, 30),
            ),
            boosting,
            -1.0,
            unseen=True,
        ),
    )
}
