"""Very many timers that are almost all taken back before their time: a hierarchical timing wheel.

G. Varghese, T. Lauck: Hashed and Hierarchical Timing Wheels, 1987 (its scheme 7, with two levels). To add and to take
back costs a few operations on dicts and sets; the event loop has one timer for each slot in use, some hundreds, and
not one for each request.
"""

import asyncio
import math

_NEAR_SECONDS = 1.0  # what is due sooner goes into fine slots, the rest into coarse ones
_FINE = 0.005
_COARSE = 0.5


class Timer:
    """What a wheel holds; made by its users with what is to be done.

    Attributes:
        due: The event loop's time when it is to be called.
        slot: Where it is in the wheel.
    """

    __slots__ = ("due", "slot")

    def __init__(self) -> None:
        self.due = 0.0
        self.slot: set[Timer] | None = None

    def expire(self) -> None:
        """Is called when its time is over."""
        raise NotImplementedError


class TimerWheel:
    """Calls back at a time: at most 5 milliseconds late, and early by no more than the loop's clock is coarse."""

    def __init__(self) -> None:
        self._fine: dict[int, set[Timer]] = {}
        self._coarse: dict[int, set[Timer]] = {}

    def add(self, when: float, timer: Timer) -> None:
        """Asks for a call at the event loop's time `when`; what is in the wheel already is not to be added."""
        loop = asyncio.get_running_loop()
        if when - loop.time() > _NEAR_SECONDS:
            slot = math.floor(when / _COARSE)
            waiting = self._coarse.get(slot)
            if waiting is None:
                waiting = self._coarse[slot] = set()
                loop.call_at(slot * _COARSE, self._refine, slot)
        else:
            slot = math.ceil(when / _FINE)
            waiting = self._fine.get(slot)
            if waiting is None:
                waiting = self._fine[slot] = set()
                loop.call_at(slot * _FINE, self._fire, slot)
        waiting.add(timer)
        timer.due, timer.slot = when, waiting

    @staticmethod
    def discard(timer: Timer) -> None:
        """Takes a call back; no matter whether it was made."""
        if timer.slot is not None:
            timer.slot.discard(timer)

    def _refine(self, slot: int) -> None:
        for timer in self._coarse.pop(slot):
            self.add(timer.due, timer)

    def _fire(self, slot: int) -> None:
        waiting = self._fine.pop(slot)
        while waiting:  # each may take others back
            waiting.pop().expire()
