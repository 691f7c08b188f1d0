"""The interface of an algorithm: from what is known to what to try next. Nothing is kept between calls."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.space import Space, Value


@dataclass(slots=True)  # not frozen: a request has thousands, and to make a frozen one takes three times as long
class Observed:
    """A trial that was made; nobody changes it.

    Attributes:
        point: Its values, in the order of the space.
        loss: What it gave, smaller is better; None while it runs, or if it failed.
        running: Whether a loss may still come.
        losses: Of all objectives, the first one first, smaller is better; empty where there is one objective only.
        violation: How far it is beyond the experiment's constraints, summed up; 0: it keeps them all.
        reports: What it has reported of the first objective so far, in order: (step, loss).
        stopped: Whether it was stopped early; `loss` is then the best of what it reported.
        name: Of the trial.
        labels: What the algorithm gave the trial when it suggested it.
        assignments: The values as the trial got them; an algorithm without a space (architectures) reads these.
    """

    point: tuple[Value, ...]
    loss: float | None
    running: bool = False
    losses: tuple[float, ...] = ()
    violation: float = 0.0
    reports: tuple[tuple[float, float], ...] = ()
    stopped: bool = False
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    assignments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """What an algorithm is asked.

    Attributes:
        space: Where to search; without parameters for algorithms that search architectures.
        settings: The algorithm's settings, with what earlier answers changed in them.
        trials: All trials made so far, in their order.
        made: How many trials were made so far, those that are no point of the space included.
        max_trial_count: How many there may be in all; 0: no limit.
        parallel: How many may run at once; 0: not told.
        prior: Trials of earlier experiments over the same space, none of which counts as made.
        nas: Katib's nasConfig as plain values (`graphConfig`, `operations`); None: no architecture is searched.
        experiment: Name of the experiment.
        objectives: How many there are.
    """

    space: Space
    settings: Mapping[str, str]
    trials: Sequence[Observed]
    made: int = 0
    max_trial_count: int = 0
    parallel: int = 0
    prior: Sequence[Observed] = ()
    nas: Mapping[str, Any] | None = None
    experiment: str = ""
    objectives: int = 1


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One trial to be made.

    Attributes:
        assignments: Parameter → value, as the trial gets it.
        name: The trial's name; empty: any.
        labels: To be kept with the trial and told with it in later questions.
    """

    assignments: Mapping[str, str]
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an algorithm suggests.

    Attributes:
        suggestions: As many as were asked for; fewer where the space has no more, or where running trials have to end
            first (`wait`).
        settings: The algorithm's state: settings that the next question is to have instead of, or besides, its own.
        wait: More will come when trials that run have ended; with False, fewer than asked for means the end.
    """

    suggestions: Sequence[Suggestion]
    settings: Mapping[str, str] = field(default_factory=dict)
    wait: bool = False


class Algorithm(ABC):
    """An algorithm under its name in Katib, or one of ours.

    Attributes:
        name: As experiments name it.
        searches_architectures: Whether it works on Katib's nasConfig, and not on a space.
        takes_texts: Whether its trials may report their objective as text (a genotype), which none can be compared by.
        is_multi_objective: Whether it works with several objectives; others are refused them.
        knows_constraints: Whether it looks at `Observed.violation`; others are told losses that say it (`ask`).
        walks_conditions: Whether it is asked about conditional spaces as they are; others about the whole cube (`ask`).
        may_repeat: Whether it gives a point again on purpose.
        reads_results: Whether it looks at more of a trial than its point; others may be told no losses.
        reads_assignments: Whether it looks at `Observed.assignments`; others may be told none.
        ignores_prior: Whether it learns nothing from trials; a warm start is refused to it.
    """

    name = ""
    searches_architectures = False
    takes_texts = False
    is_multi_objective = False
    knows_constraints = False
    walks_conditions = False
    may_repeat = False
    reads_results = True
    reads_assignments = False
    ignores_prior = False

    @abstractmethod
    def validate(self, question: Question) -> None:
        """Checks settings and space before an experiment begins.

        Raises:
            InvalidArgument: The algorithm cannot work with them; the message is for the user.
        """

    def load(self) -> None:  # noqa: B027  # most need nothing that is slow to import
        """Imports what its first answer would otherwise wait for."""

    def check(self, question: Question) -> None:
        """Checks what an answer needs; another thing than `validate` where Katib's suggestions differ from its checks.

        Raises:
            InvalidArgument: It cannot be answered; the message is for the user.
        """
        self.validate(question)

    def space_of(self, space: Space, settings: Mapping[str, str]) -> Space:
        """Gives the space that it searches: without the parameters that it sets itself, beyond their ranges even.

        Args:
            space: Of the experiment.
            settings: Of the algorithm.
        """
        return space

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """Gives the next points; what most algorithms have to say.

        Args:
            question: What is known.
            count: How many are wanted.

        Returns:
            As many points, none of which was tried before; fewer where the space has no more.
        """
        raise NotImplementedError

    def answer(self, question: Question, count: int) -> Answer:
        """Gives the next trials; algorithms that name or label them, or keep a state, do it here.

        Args:
            question: What is known.
            count: How many are wanted.
        """
        points = self.suggest(question, count)
        return Answer([Suggestion(question.space.assignments(point)) for point in points])

    def early_stopping(self, question: Question) -> tuple[str, Mapping[str, str]] | None:
        """Gives what stops an experiment's trials early where it names nothing itself.

        Args:
            question: Of the experiment, checked by `validate`.

        Returns:
            Name and settings of an early stopping; None: trials run to their ends.
        """
        return None


def generator(settings: Mapping[str, str], made: int) -> np.random.Generator:
    """Makes the source of randomness for the suggestion after `made` trials.

    With `random_state` set it depends on that and on `made` alone, so that a service that was restarted, or another
    replica, suggests the same.
    """
    state = settings.get("random_state")
    return np.random.default_rng(None if state is None else [int(state), made])


def check_settings(settings: Mapping[str, str], known: Sequence[str], algorithm: str) -> None:
    """Checks that all settings are known, and `random_state`, if it is there.

    Raises:
        InvalidArgument: One is not.
    """
    for name in settings:
        if name not in known:
            raise InvalidArgument(f"unknown setting {name} for algorithm {algorithm}", field="algorithmSettings")
    if "random_state" in settings:
        whole_number(settings, "random_state", smallest=0, largest=2**32 - 1)


def whole_number(settings: Mapping[str, str], name: str, *, smallest: int, largest: int = 2**31) -> int:
    """Reads a setting that is a whole number.

    Raises:
        InvalidArgument: It is none, or out of range.
    """
    field = f"algorithmSettings.{name}"
    try:
        value = int(settings[name])
    except ValueError:
        message = f"failed to validate {name}({settings[name]}): should be a whole number"
        raise InvalidArgument(message, field=field) from None
    if value < smallest:
        bound = {0: "great or equal than zero", 1: "great than zero"}.get(smallest, f"at least {smallest}")
        raise InvalidArgument(f"{name} should be {bound}", field=field)
    if value > largest:
        raise InvalidArgument(f"{name} should be at most {largest}", field=field)
    return value


def real_number(settings: Mapping[str, str], name: str) -> float:
    """Reads a setting that is a finite number.

    Raises:
        InvalidArgument: It is none.
    """
    try:
        value = float(settings[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        message = f"failed to validate {name}({settings[name]}): should be a number"
        raise InvalidArgument(message, field=f"algorithmSettings.{name}")
    return value
