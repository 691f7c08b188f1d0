"""The interface of a sink."""

import random
from enum import Enum
from typing import Protocol

from mlmesh_serving.observers.cloudevent import CloudEvent

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 10.0


class Outcome(Enum):
    """What became of an event."""

    SENT = "sent"
    REJECTED = "rejected"
    """The sink will not have it: trying again would not help."""
    FAILED = "failed"
    """The sink could not be reached, or failed, as often as it was tried."""


class Sink(Protocol):
    """Takes events. `offer` never waits; what it takes is delivered later, or counted as not delivered."""

    @property
    def is_filling(self) -> bool:
        """Whether more than half of the room is taken."""

    def offer(self, event: CloudEvent) -> bool:
        """Takes an event, or tells that too many wait."""

    async def run(self) -> None:
        """Delivers until it is cancelled."""

    async def drain(self, seconds: float) -> int:
        """Delivers what waits, at most so long; gives how many events are left."""


def wait_seconds(attempt: int, asked: float | None = None) -> float:
    """Gives how long to wait before the next attempt: twice as long each time, half of it by chance.

    Args:
        attempt: How many have failed, from 1.
        asked: Seconds that the sink asked for (Retry-After).
    """
    longest: float = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
    wait = longest * (0.5 + random.random() / 2)  # noqa: S311
    return max(wait, min(asked, LONGEST_WAIT_SECONDS)) if asked is not None else wait
