"""Hyperband, under Katib's name and settings.

L. Li, K. Jamieson, G. DeSalvo, A. Rostamizadeh, A. Talwalkar, "Hyperband: A Novel Bandit-Based Approach to
Hyperparameter Optimization", JMLR 18 (2018).
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.base import (
    Algorithm,
    Answer,
    Observed,
    Question,
    Suggestion,
    generator,
    real_number,
    whole_number,
)
from mlmesh_katib.algorithms.random import draw_new
from mlmesh_katib.space import Space, Value

_DEFAULT_ETA = 3.0
_LARGEST_RESOURCE = 1e9
_STATE = ("s_max", "b_l", "r", "n", "current_s", "current_i", "evaluating_trials")
_KNOWN = ("r_l", "eta", "resource_name", "random_state", *_STATE)


class Hyperband(Algorithm):
    """Brackets of successive halving, from many trials with little of a resource to few with all of it.

    A bracket s, from s_max down to 0, begins with n trials that get r_l / eta^s of the resource; of each rung, the
    best 1/eta are run again with eta times as much. Which rung a trial belongs to is told by its configuration and its
    resource, so that all state is in the trials; the settings that Katib keeps are told, and not read. While a rung is
    not complete, the next bracket begins: a Katib controller takes no answer with fewer trials than it asked for.
    """

    name = "hyperband"
    reads_assignments = True
    ignores_prior = True
    may_repeat = True

    def validate(self, question: Question) -> None:
        """See Algorithm."""
        self.check(question)
        least = math.ceil(_eta(question.settings) ** _largest_bracket(question.settings))
        if question.parallel < least:
            raise InvalidArgument(f"parallelTrialCount must be not less than {least}.", field="parallelTrialCount")
        resource = question.settings["resource_name"]
        names = [parameter.name for parameter in question.space.parameters]
        if resource not in names:
            raise InvalidArgument(
                "value of resource_name setting must be in parameters.", field="algorithmSettings.resource_name"
            )
        if question.space.activations:
            raise InvalidArgument("hyperband does not take conditional parameters.", field="parameters")
        if len(names) < 2:
            raise InvalidArgument("hyperband needs a parameter besides the resource.", field="parameters")

    def check(self, question: Question) -> None:
        """See Algorithm; as in Katib, a resource that is no parameter is given to trials besides them."""
        settings = question.settings
        for name in settings:
            if name not in _KNOWN:
                message = f"unknown setting {name} for algorithm {self.name}"
                raise InvalidArgument(message, field=f"algorithmSettings.{name}")
        if "r_l" not in settings or not settings.get("resource_name"):
            raise InvalidArgument("r_l and resource_name must be set.", field="algorithmSettings")
        try:
            largest = float(settings["r_l"])
        except ValueError:
            largest = math.nan
        if not 1 <= largest <= _LARGEST_RESOURCE:
            message = f"r_l must be a positive float number. It must be from 1 to {_LARGEST_RESOURCE:g}."
            raise InvalidArgument(message, field="algorithmSettings.r_l")
        if "eta" in settings and not 2 <= real_number(settings, "eta") <= _LARGEST_RESOURCE:
            raise InvalidArgument("eta must be at least 2.", field="algorithmSettings.eta")
        if "random_state" in settings:
            whole_number(settings, "random_state", smallest=0, largest=2**32 - 1)

    def space_of(self, space: Space, settings: Mapping[str, str]) -> Space:
        """See Algorithm: the resource is not searched, and may be beyond the range of its parameter."""
        return Space(tuple(p for p in space.parameters if p.name != settings.get("resource_name")))

    def answer(self, question: Question, count: int) -> Answer:
        """See Algorithm."""
        settings, space = question.settings, question.space
        brackets = _brackets(settings)
        _sort_in(brackets, question)
        tried = {trial.point for trial in question.trials}
        size = space.size()
        left = None if size is None else size - len(tried)
        random = generator(settings, question.made)
        found: list[tuple[tuple[Value, ...], int]] = []
        current: dict[str, str] = {}
        waits = False
        for bracket in brackets:
            if left is not None:
                bracket.size = min(bracket.size, len(bracket.rungs[0]) + left)
                left -= bracket.size - len(bracket.rungs[0])
            found += bracket.promote(count - len(found))
            missing = min(bracket.size - len(bracket.rungs[0]), count - len(found))
            drawn = draw_new(space, random, tried, missing)
            found += [bracket.begin(point) for point in drawn]
            if len(drawn) < missing:  # the space has no more
                bracket.size = len(bracket.rungs[0])
                found += bracket.promote(count - len(found))
            if not bracket.is_over():
                current = current or bracket.state()
                waits = True
        names = [parameter.name for parameter in space.parameters]
        suggestions = [
            Suggestion({**dict(zip(names, space.key(point), strict=True)), settings["resource_name"]: str(resource)})
            for point, resource in found
        ]
        state = {
            "r_l": settings["r_l"],
            "eta": f"{_eta(settings):g}",
            "resource_name": settings["resource_name"],
            "s_max": str(len(brackets) - 1),
            "b_l": str(len(brackets) * float(settings["r_l"])),
            **(current or {"r": "0", "n": "0", "current_s": "-1", "current_i": "0", "evaluating_trials": "0"}),
        }
        return Answer(suggestions, state, wait=waits)


@dataclass(slots=True)
class _Bracket:
    """Successive halving from one number of configurations.

    Attributes:
        number: s: how often it is halved.
        eta: The share that goes on is 1/eta.
        largest: Resource of the last rung.
        size: How many configurations begin.
        rungs: Each one's trials by configuration.
    """

    number: int
    eta: float
    largest: float
    size: int
    rungs: list[dict[tuple[Value, ...], Observed]] = field(default_factory=list)

    def resource(self, rung: int) -> int:
        """Gives the resource of a rung's trials, a whole number as in Katib."""
        return int(self.largest * self.eta ** (rung - self.number) + 1e-9)

    def begin(self, point: tuple[Value, ...]) -> tuple[tuple[Value, ...], int]:
        """Begins with a configuration: (configuration, resource)."""
        return self._run(point, 0)

    def promote(self, most: int) -> list[tuple[tuple[Value, ...], int]]:
        """Takes configurations that go on into a next rung, the best first: (configuration, resource)."""
        found: list[tuple[tuple[Value, ...], int]] = []
        for rung, size in enumerate(self._sizes()[:-1]):
            trials = self.rungs[rung]
            if len(trials) < size or any(trial.running for trial in trials.values()):
                break
            new = [point for point in self._best(rung) if point not in self.rungs[rung + 1]]
            found += [self._run(point, rung + 1) for point in new[: most - len(found)]]
        return found

    def _run(self, point: tuple[Value, ...], rung: int) -> tuple[tuple[Value, ...], int]:
        self.rungs[rung][point] = Observed(point, None, running=True)
        return point, self.resource(rung)

    def is_over(self) -> bool:
        """Tells whether nothing more will come of it."""
        return self._open() is None

    def state(self) -> dict[str, str]:
        """Gives what Katib keeps in the settings about a bracket that is not over."""
        rung = self._open() or 0
        running = sum(trial.running for trial in self.rungs[rung].values())
        return {
            "r": str(self.largest * self.eta**-self.number),
            "n": str(self.size),
            "current_s": str(self.number),
            "current_i": str(rung),
            "evaluating_trials": str(running),
        }

    def _open(self) -> int | None:
        for rung, size in enumerate(self._sizes()):
            if len(self.rungs[rung]) < size or any(trial.running for trial in self.rungs[rung].values()):
                return rung
        return None

    def _sizes(self) -> list[int]:
        """Gives how many trials each rung is to have; fewer than planned where trials of the one before failed."""
        sizes = [self.size]
        for rung in range(self.number):
            sizes.append(len(self._best(rung)) if len(self.rungs[rung]) >= sizes[-1] else self._share(sizes[-1]))
        return sizes

    def _best(self, rung: int) -> list[tuple[Value, ...]]:
        """Gives the configurations of a rung that go on; none of those that failed."""
        losses = {point: trial.loss for point, trial in self.rungs[rung].items() if trial.loss is not None}
        ranked = sorted(losses, key=lambda point: losses[point])
        return ranked[: self._share(len(self.rungs[rung]))]

    def _share(self, size: int) -> int:
        return math.ceil(size / self.eta - 1e-9)


def _brackets(settings: Mapping[str, str]) -> list[_Bracket]:
    eta, last = _eta(settings), _largest_bracket(settings)
    return [
        _Bracket(
            number,
            eta,
            float(settings["r_l"]),
            math.ceil((last + 1) * eta**number / (number + 1) - 1e-9),
            [{} for _ in range(number + 1)],
        )
        for number in range(last, -1, -1)
    ]


def _sort_in(brackets: list[_Bracket], question: Question) -> None:
    """Puts trials into the rungs: a configuration's least resource tells its bracket."""
    runs: dict[tuple[Value, ...], dict[int, Observed]] = defaultdict(dict)
    for trial in question.trials:
        given = _resource(trial.assignments.get(question.settings["resource_name"], ""))
        if given is not None:
            before = runs[trial.point].get(given)
            if before is None or before.loss is None:
                runs[trial.point][given] = trial
    for point, trials in runs.items():
        for bracket in brackets:
            if bracket.resource(0) == min(trials):
                places = {bracket.resource(rung): rung for rung in range(bracket.number + 1)}
                for given, trial in trials.items():
                    if given in places:
                        bracket.rungs[places[given]][point] = trial


def _resource(text: str) -> int | None:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None


def _eta(settings: Mapping[str, Any]) -> float:
    return float(settings.get("eta", _DEFAULT_ETA))


def _largest_bracket(settings: Mapping[str, Any]) -> int:
    return int(math.log(float(settings["r_l"])) / math.log(_eta(settings)) + 1e-9)
