"""The interface of an algorithm: from what is known to what to try next. Nothing is kept between calls."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.space import Space, Value


@dataclass(frozen=True, slots=True)
class Observed:
    """A trial that was made.

    Attributes:
        point: Its values, in the order of the space.
        loss: What it gave, smaller is better; None while it runs, or if it failed.
        running: Whether a loss may still come.
    """

    point: tuple[Value, ...]
    loss: float | None
    running: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What an algorithm is asked.

    Attributes:
        space: Where to search.
        settings: The algorithm's settings, checked.
        trials: All trials made so far, in their order.
        made: How many trials were made so far, those that are no point of the space included.
        max_trial_count: How many there may be in all; 0: no limit.
    """

    space: Space
    settings: Mapping[str, str]
    trials: Sequence[Observed]
    made: int = 0
    max_trial_count: int = 0


class Algorithm(ABC):
    """An algorithm under its name in Katib."""

    name = ""

    @abstractmethod
    def validate(self, question: Question) -> None:
        """Checks settings and space before an experiment begins.

        Raises:
            InvalidArgument: The algorithm cannot work with them; the message is for the user.
        """

    @abstractmethod
    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """Gives the next points.

        Args:
            question: What is known.
            count: How many are wanted.

        Returns:
            As many points, none of which was tried before; fewer where the space has no more.
        """


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
    try:
        value = int(settings[name])
    except ValueError:
        value = smallest - 1
    if not smallest <= value <= largest:
        raise InvalidArgument(
            f"{name} should be a whole number of at least {smallest}, got {settings[name]!r}",
            field=f"algorithmSettings.{name}",
        )
    return value


def one_of(settings: Mapping[str, str], name: str, allowed: Sequence[str]) -> None:
    """Checks a setting that is a word.

    Raises:
        InvalidArgument: It is another.
    """
    if name in settings and settings[name] not in allowed:
        raise InvalidArgument(
            f"{name} {settings[name]} is not supported; it must be one of {', '.join(allowed)}",
            field=f"algorithmSettings.{name}",
        )
