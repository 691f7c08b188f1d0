"""The interface of early stopping."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class History:
    """What a trial has reported of the objective.

    Attributes:
        name: Of the trial.
        losses: In the order they were reported; smaller is better (the negative of what is maximised).
        ended: The trial has ended by itself with success.
        new: How many of the losses, the last ones, have come since `decide` was asked before.
    """

    name: str
    losses: tuple[float, ...]
    ended: bool = False
    new: int = 1


class EarlyStopping(ABC):
    """A way to stop trials early. Keeps nothing between calls."""

    name = ""

    @abstractmethod
    def validate(self, settings: Mapping[str, str]) -> None:
        """Checks the settings.

        Raises:
            InvalidArgument: One is wrong or unknown.
        """

    @abstractmethod
    def decide(self, settings: Mapping[str, str], trial: History, others: Sequence[History]) -> str | None:
        """Tells whether a trial should be stopped; asked after each of its reports.

        Args:
            settings: Checked.
            trial: The one that has just reported.
            others: All other trials of the experiment that have reported.

        Returns:
            Why, for people; None: it goes on.
        """
