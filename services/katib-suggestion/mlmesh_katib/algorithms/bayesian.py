"""Bayesian optimisation by scikit-optimize, under Katib's name, settings and defaults.

J. Snoek, H. Larochelle, R. P. Adams, "Practical Bayesian Optimization of Machine Learning Algorithms", NIPS 2012; for
the points that run meanwhile, the constant liar: D. Ginsbourger, R. Le Riche, L. Carraro, "Kriging Is Well-Suited to
Parallelize Optimization" (2010).
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.base import Algorithm, Question, check_settings, generator, whole_number
from mlmesh_katib.algorithms.random import draw_new
from mlmesh_katib.space import Kind, Parameter, Space, Value

_DEFAULTS = {"base_estimator": "GP", "n_initial_points": "10", "acq_func": "gp_hedge", "acq_optimizer": "auto"}
_LARGE = 1e100
_ESTIMATORS = ("GP", "RF", "ET", "GBRT")
_ACQUISITIONS = ("gp_hedge", "LCB", "EI", "PI", "EIps", "PIps")
_OPTIMIZERS = ("auto", "sampling", "lbfgs")


class BayesianOptimization(Algorithm):
    """A surrogate model of the objective, refitted at each call."""

    name = "bayesianoptimization"

    def load(self) -> None:
        """See Algorithm."""
        import skopt  # noqa: F401

    def validate(self, question: Question) -> None:
        """See Algorithm."""
        settings = question.settings
        check_settings(settings, (*_DEFAULTS, "random_state"), self.name)
        for name, allowed in (
            ("base_estimator", _ESTIMATORS),
            ("acq_func", _ACQUISITIONS),
            ("acq_optimizer", _OPTIMIZERS),
        ):
            if settings.get(name, allowed[0]) not in allowed:
                raise InvalidArgument(
                    f"{name} {settings[name]} is not supported in Bayesian optimization",
                    field=f"algorithmSettings.{name}",
                )
        if settings.get("acq_optimizer") == "lbfgs" and not _has_gradients(question.space, {**_DEFAULTS, **settings}):
            raise InvalidArgument(
                "lbfgs needs gradients: base_estimator GP and a parameter that is not categorical; or use sampling",
                field="algorithmSettings.acq_optimizer",
            )
        if "n_initial_points" in settings:
            whole_number(settings, "n_initial_points", smallest=0, largest=100_000)

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm."""
        settings = {**_DEFAULTS, **question.settings}
        random = generator(settings, question.made)
        tried = {trial.point for trial in question.trials}
        finished = [trial for trial in (*question.prior, *question.trials) if trial.loss is not None]
        initial = max(0, int(settings["n_initial_points"]) - len(question.prior) - len(question.trials))
        points = draw_new(question.space, random, tried, min(count, initial))
        wanted = count - len(points)
        if wanted and finished:
            running = [trial.point for trial in question.trials if trial.running] + points
            told = [(trial.point, float(trial.loss or 0.0)) for trial in finished]
            for point in _ask(question.space, settings, random, told, running, wanted):
                if point not in tried:
                    tried.add(point)
                    points.append(point)
        if len(points) < count:  # no model yet, or it proposed what was tried already
            points += draw_new(question.space, random, tried, count - len(points))
        return points


def _ask(
    space: Space,
    settings: dict[str, str],
    random: np.random.Generator,
    told: list[tuple[tuple[Value, ...], float]],
    running: list[tuple[Value, ...]],
    count: int,
) -> list[tuple[Value, ...]]:
    import skopt  # takes a second: only when it is needed
    from threadpoolctl import threadpool_limits

    acq_optimizer = settings["acq_optimizer"]
    if acq_optimizer == "auto":  # said here, since scikit-optimize's own choice is wrong for EIps and PIps
        acq_optimizer = "lbfgs" if _has_gradients(space, settings) else "sampling"
    optimizer = skopt.Optimizer(
        [_dimension(parameter) for parameter in space.parameters],
        base_estimator=_estimator(settings["base_estimator"], random),
        n_initial_points=1,
        acq_func=settings["acq_func"],
        acq_optimizer=acq_optimizer,
        random_state=int(random.integers(2**31)),
    )
    points = [_to_skopt(space, point) for point, _ in told]
    largest = max(abs(loss) for _, loss in told)
    scale = largest if largest > _LARGE else 1.0  # the models square what they are told
    losses = [loss / scale for _, loss in told]
    if settings["acq_func"].endswith("ps"):  # "per second": all trials take the same time, for all we know
        losses_told: list[Any] = [(loss, 1.0) for loss in losses]
        lie: Any = (min(losses), 1.0)
    else:
        losses_told, lie = list(losses), min(losses)
    for point in running:
        points.append(_to_skopt(space, point))
        losses_told.append(lie)
    asked: list[list[Any]] = []
    # The matrices are small: threads cost more than they give, and trials want the processors.
    with warnings.catch_warnings(), threadpool_limits(1):
        # "evaluated before" is dealt with by the caller; the fit's warnings say nothing a user could act on.
        warnings.simplefilter("ignore")
        optimizer.tell(points, losses_told)
        while len(asked) < count:  # as ask(n_points=count, strategy="cl_min"), which fits the model twice more
            asked.append(optimizer.ask())
            if len(asked) < count:
                optimizer.tell(asked[-1], lie)
    return [_from_skopt(space, point) for point in asked]


def _estimator(name: str, random: np.random.Generator) -> Any:
    if name != "GBRT":
        return name
    from mlmesh_katib.algorithms.boosting import QuantileBoosting

    return QuantileBoosting(int(random.integers(2**31)))


def _has_gradients(space: Space, settings: Mapping[str, str]) -> bool:
    """Tells whether the model has: a Gaussian process over parameters that are not all categorical."""
    return settings["base_estimator"] == "GP" and (
        not space.parameters or not all(_is_categorical(p) for p in space.parameters)
    )


def _is_categorical(parameter: Parameter) -> bool:
    """Tells whether scikit-optimize is told of categories: of one for what cannot vary."""
    is_fixed = parameter.count() == 1 or (not parameter.is_list and parameter.low == parameter.high)
    return is_fixed or parameter.kind is Kind.CATEGORICAL


def _dimension(parameter: Parameter) -> Any:
    from skopt.space import Categorical, Integer, Real

    count = parameter.count()
    if _is_categorical(parameter):
        return Categorical(list(range(count)) if count else [parameter.low])
    prior = "log-uniform" if parameter.distribution.is_log else "uniform"
    if parameter.kind is Kind.DISCRETE or parameter.step is not None:
        return Integer(0, (count or 1) - 1)
    if parameter.kind is Kind.INT:
        return Integer(int(parameter.low), int(parameter.high), prior=prior)
    return Real(parameter.low, parameter.high, prior=prior)


def _is_indexed(parameter: Parameter) -> bool:
    return parameter.is_list or parameter.step is not None or parameter.count() == 1


def _to_skopt(space: Space, point: tuple[Value, ...]) -> list[Any]:
    found: list[Any] = []
    for parameter, value in zip(space.parameters, point, strict=True):
        if parameter.is_list:
            found.append(parameter.choices.index(value))
        elif _is_indexed(parameter):
            found.append(round((float(value) - parameter.low) / (parameter.step or 1.0)))
        else:
            found.append(int(value) if parameter.kind is Kind.INT else float(value))
    return found


def _from_skopt(space: Space, point: list[Any]) -> tuple[Value, ...]:
    found: list[Value] = []
    for parameter, value in zip(space.parameters, point, strict=True):
        if _is_indexed(parameter):
            found.append(parameter.at(int(value)))
        elif parameter.kind is Kind.INT:
            found.append(int(value))
        else:
            found.append(min(max(float(value), parameter.low), parameter.high))
    return tuple(found)
