"""Asynchronous successive halving: many trials with little, the best of them with more.

L. Li, K. Jamieson, A. Rostamizadeh, E. Gonina, J. Ben-Tzur, M. Hardt, B. Recht, A. Talwalkar, "A System for Massively
Parallel Hyperparameter Tuning", MLSys 2020.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.base import Algorithm, Answer, Observed, Question, Suggestion, check_settings
from mlmesh_katib.algorithms.penalty import penalised
from mlmesh_katib.algorithms.rungs import SETTINGS, Rungs, arrival, read_rungs
from mlmesh_katib.space import Kind, Parameter, Space, Value

SAMPLERS = ("random", "sobol", "tpe", "multivariate-tpe", "bayesianoptimization", "gp")
_STOPPING = "asha"
"""Name of the early stopping."""


class Asha(Algorithm):
    """Chooses points by another algorithm, and how far they are taken by their rank among those that came as far.

    With `resource_name`, which is a parameter of the space, a trial is started with an amount of the resource and runs
    to its end; the best 1/eta on a rung are started anew with eta times as much (the paper's form). Without, trials
    report as they go, and the early stopping of the same name ends those that are not worth more.
    """

    name = "asha"

    def validate(self, question: Question) -> None:
        """See Algorithm."""
        settings = question.settings
        check_settings(settings, (*SETTINGS, *self._own_settings(), "resource_name", "random_state"), self.name)
        view = _view(question)
        if view.resource is not None:
            _check_resource(question.space, view, settings["resource_name"])
        self._check_sampling(replace(question, space=view.inner, settings=_sampler_settings(settings)), settings)

    def early_stopping(self, question: Question) -> tuple[str, Mapping[str, str]] | None:
        """See Algorithm."""
        if "resource_name" in question.settings:
            return None
        return _STOPPING, {name: value for name, value in question.settings.items() if name in SETTINGS}

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm. Those that go on come first, from the highest rung down."""
        view = _view(question)
        points = _promoted(view, question.trials)[:count]
        known, prior = view.observed(question.trials), view.observed(question.prior)
        enough = self._enough(view, question.settings)
        level = _model_level(view, [*prior, *known], enough)
        asked = replace(
            question,
            space=view.inner,
            trials=[view.outcome(trials, level) for trials in known],
            prior=[found for trials in prior if (found := view.outcome(trials, level)).loss is not None],
        )
        inner = self._sample(penalised(asked), count - len(points))  # again: the losses are those of a rung now
        return points + [view.point(config, 0) for config in inner]

    def answer(self, question: Question, count: int) -> Answer:
        """See Algorithm; what runs may have to end before something can go on."""
        points = self.suggest(question, count)
        waits = len(points) < count and "resource_name" in question.settings
        return Answer(
            [Suggestion(question.space.assignments(point)) for point in points],
            wait=waits and any(trial.running for trial in question.trials),
        )

    def _own_settings(self) -> tuple[str, ...]:
        return ("sampler",)

    def _check_sampling(self, question: Question, settings: Mapping[str, str]) -> None:
        self._sampler(settings).validate(question)

    def _enough(self, view: "_View", settings: Mapping[str, str]) -> int:
        """Gives how many results make a model of a rung: one more than there are parameters."""
        return len(view.inner.parameters) + 1

    def _sample(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """Chooses new points, of a question about the space without the resource."""
        sampler = self._sampler(question.settings)
        return sampler.suggest(replace(question, settings=_sampler_settings(question.settings)), count)

    def _sampler(self, settings: Mapping[str, str]) -> Algorithm:
        from mlmesh_katib.algorithms import ALGORITHMS  # which holds this one, too

        name = settings.get("sampler", SAMPLERS[0])
        served = [sampler for sampler in SAMPLERS if sampler in ALGORITHMS]
        if name not in served:
            raise InvalidArgument(
                f"sampler {name} is not supported; it must be one of {', '.join(served)}",
                field="algorithmSettings.sampler",
            )
        return ALGORITHMS[name]


def _sampler_settings(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name == "random_state"}


@dataclass(frozen=True, slots=True)
class _View:
    """A space with its resource apart.

    Attributes:
        inner: The space without the resource.
        resource: Place of the resource in the space; None: it is no parameter, and trials report what they have used.
        rungs: When trials are compared.
        levels: The amounts of the resource, as values of the parameter; empty: it is none.
    """

    inner: Space
    resource: int | None
    rungs: Rungs
    levels: tuple[Value, ...]

    def config(self, point: tuple[Value, ...]) -> tuple[Value, ...]:
        """Gives a point without the resource."""
        return point if self.resource is None else point[: self.resource] + point[self.resource + 1 :]

    def point(self, config: tuple[Value, ...], rung: int) -> tuple[Value, ...]:
        """Gives a point with the amount of a rung."""
        if self.resource is None:
            return config
        return (*config[: self.resource], self.levels[rung], *config[self.resource :])

    def observed(self, trials: Sequence[Observed]) -> list[list[Observed]]:
        """Puts the trials together that differ in the resource only."""
        found: dict[tuple[Value, ...], list[Observed]] = {}
        if self.resource is None:  # trials from elsewhere may be of one point
            return [[trial] for trial in trials]
        for trial in trials:
            found.setdefault(self.config(trial.point), []).append(trial)
        return list(found.values())

    def loss(self, trials: Sequence[Observed], level: float) -> float | None:
        """Gives what a configuration has given with so much of the resource; None: it has not come so far."""
        if self.resource is None:
            (trial,) = trials
            place = arrival([step for step, _ in trial.reports], level)
            return None if place is None else trial.reports[place][1]
        return next((t.loss for t in trials if t.loss is not None and t.point[self.resource] == level), None)

    def outcome(self, trials: Sequence[Observed], level: float | None) -> Observed:
        """Gives a configuration as one trial, with what it has given on a rung; None: with its end."""
        last = trials[-1]
        loss = last.loss if level is None else self.loss(trials, level)
        running = any(trial.running for trial in trials)
        return replace(last, point=self.config(last.point), loss=loss, running=running and loss is None)


def _view(question: Question) -> _View:
    space, settings = question.space, question.settings
    name = settings.get("resource_name")
    if name is None:
        return _View(space, None, read_rungs(settings), ())
    place = next((index for index, p in enumerate(space.parameters) if p.name == name), None)
    if place is None or space.parameters[place].kind is Kind.CATEGORICAL:
        raise InvalidArgument(
            f"resource_name should be a parameter with numbers, got {name!r}", field="algorithmSettings.resource_name"
        )
    parameter = space.parameters[place]
    low, high = _ends(parameter)
    rungs = read_rungs(settings, max(low, 1.0) if high >= 1 else low, high)
    inner = Space(tuple(p for index, p in enumerate(space.parameters) if index != place))
    read = [parameter.parse(str(level)) for level in rungs.levels(rungs.largest or high)]
    return _View(inner, place, rungs, tuple(level for level in read if level is not None))


def _ends(parameter: Parameter) -> tuple[float, float]:
    if parameter.is_list:
        return float(parameter.choices[0]), float(parameter.choices[-1])
    return parameter.low, parameter.high


def _check_resource(space: Space, view: _View, name: str) -> None:
    field = "algorithmSettings.resource_name"
    place = view.resource or 0
    if any(place in (rule.child, rule.parent) for rule in space.activations):
        raise InvalidArgument(f"{name!r} must be there always, and nothing hang on it", field=field)
    if not view.inner.parameters:
        raise InvalidArgument(f"there must be a parameter besides {name!r}", field="parameters")
    wanted = view.rungs.levels(view.rungs.largest or 0.0)
    if (
        wanted[0] <= 0
        or len(view.levels) < len(wanted)
        or not all(_is_value(space.parameters[place], w) for w in wanted)
    ):
        amounts = ", ".join(f"{level:g}" for level in wanted)
        raise InvalidArgument(f"{name!r} must have the values {amounts}", field=field)


def _is_value(parameter: Parameter, level: float) -> bool:
    """Tells whether an amount is one of the parameter's values: whole where they are, and on its steps."""
    if parameter.is_list:
        return level in parameter.choices
    if parameter.kind is Kind.INT and not level.is_integer():
        return False
    steps = (level - parameter.low) / (parameter.step or 1.0)
    return parameter.step is None or abs(steps - round(steps)) < 1e-9


def _promoted(view: _View, trials: Sequence[Observed]) -> list[tuple[Value, ...]]:
    """Gives the points that are worth more of the resource, from the highest rung down, the best first."""
    if view.resource is None:
        return []
    found = []
    begun = {trial.point for trial in trials}
    for rung in reversed(range(len(view.levels) - 1)):
        ended = [t for t in trials if t.loss is not None and t.point[view.resource] == view.levels[rung]]
        best = sorted(ended, key=lambda trial: trial.loss or 0.0)[: view.rungs.survivors(len(ended))]
        points = (view.point(view.config(trial.point), rung + 1) for trial in best)
        found += [point for point in dict.fromkeys(points) if point not in begun]
    return found


def _model_level(view: _View, known: Sequence[Sequence[Observed]], enough: int) -> float | None:
    """Gives the highest rung with enough results for a model; None: none has, and what trials ended with counts."""
    if view.resource is None:
        most = max((step for (trial,) in known for step, _ in trial.reports), default=0.0)
        levels = view.rungs.levels(most)
    else:
        levels = [float(level) for level in view.levels]
    for level in reversed(levels):
        if sum(view.loss(trials, level) is not None for trials in known) >= enough:
            return level
    return levels[0] if view.resource is not None and levels else None
