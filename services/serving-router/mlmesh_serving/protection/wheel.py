"""Very many timers that are almost all taken back before their time: a hashed timing wheel.

G. Varghese, T. Lauck: Hashed and Hierarchical Timing Wheels, 1987 (its scheme 6). To add and to take back costs a set's
`add` and `discard`; the event loop has one timer for each slot in use, not one for each request.
"""

import asyncio
import math
from collections.abc import Callable

Callback = Callable[[], None]


class TimerWheel:
    """Calls back at a time, at most one slot late and never early.

    Args:
        slot_seconds: Width of a slot.
    """

    def __init__(self, slot_seconds: float = 0.005) -> None:
        self._width = slot_seconds
        self._slots: dict[int, set[Callback]] = {}

    def add(self, when: float, callback: Callback) -> int:
        """Asks for a call at the event loop's time `when`; gives what `discard` wants to be told."""
        slot = math.ceil(when / self._width)
        waiting = self._slots.get(slot)
        if waiting is None:
            waiting = self._slots[slot] = set()
            asyncio.get_running_loop().call_at(slot * self._width, self._fire, slot)
        waiting.add(callback)
        return slot

    def discard(self, slot: int, callback: Callback) -> None:
        """Takes a call back; no matter whether it was made."""
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.discard(callback)

    def _fire(self, slot: int) -> None:
        for callback in self._slots.pop(slot):
            callback()
