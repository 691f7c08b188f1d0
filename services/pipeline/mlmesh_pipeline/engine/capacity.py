"""Counts what attempts take against what the machine has, so that it is not swamped."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from mlmesh_pipeline.ir.container_resources import Machine, Resources

_LEAST_MILLICPUS = 100  # however little a task asks for, it is a process


@dataclass(frozen=True, slots=True)
class Need:
    """What an attempt takes: a slot if it asks for no CPUs, else these; and memory."""

    slots: int
    millicpus: int
    memory: int

    def amounts(self) -> tuple[int, int, int]:
        """Gives the amounts, in the order of `Capacity`."""
        return (self.slots, self.millicpus, self.memory)


@dataclass(slots=True)
class _Waiter:
    number: int
    need: Need
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Capacity:
    """Slots, CPUs and memory; those who come first get them first.

    Who cannot have all it needs yet keeps what it is short of for itself: nobody who came later gets any of that, so a
    large task is not starved by small ones. Who needs none of it goes ahead.

    Args:
        slots: Tasks that ask for no CPUs, at a time.
        machine: CPUs and memory to give.
    """

    def __init__(self, slots: int, machine: Machine) -> None:
        self.machine = machine
        self._free = [slots, machine.millicpus, machine.memory]
        # By which of the three they need: all in one queue are short of the same when the first is.
        self._queues: dict[tuple[bool, ...], deque[_Waiter]] = {}
        self._numbers = itertools.count()

    def need(self, resources: Resources) -> Need:
        """Gives what a container takes.

        Raises:
            BadResources: It asks for more than the machine has.
        """
        millicpus = resources.counted_cpus(self.machine)
        if millicpus:
            millicpus = min(max(millicpus, _LEAST_MILLICPUS), self.machine.millicpus)
        return Need(0 if millicpus else 1, millicpus, resources.counted_memory(self.machine))

    @contextlib.asynccontextmanager
    async def taken(self, need: Need) -> AsyncIterator[None]:
        """Waits until it is there, and holds it."""
        waiter = _Waiter(next(self._numbers), need)
        self._queues.setdefault(tuple(amount > 0 for amount in need.amounts()), deque()).append(waiter)
        self._grant()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self._give_back(need)
            else:
                self._grant()  # those behind it need not wait for it
            raise
        try:
            yield
        finally:
            self._give_back(need)

    def _give_back(self, need: Need) -> None:
        self._free = [free + amount for free, amount in zip(self._free, need.amounts(), strict=True)]
        self._grant()

    def _grant(self) -> None:
        while waiter := self._next():
            self._free = [free - amount for free, amount in zip(self._free, waiter.need.amounts(), strict=True)]
            waiter.granted.set_result(None)

    def _next(self) -> _Waiter | None:
        """Takes out the first who may have what it needs."""
        for queue in self._queues.values():
            while queue and queue[0].granted.cancelled():
                queue.popleft()
        kept = [False, False, False]
        for kinds, queue in sorted(
            ((kinds, queue) for kinds, queue in self._queues.items() if queue), key=lambda item: item[1][0].number
        ):
            short = [amount > free for amount, free in zip(queue[0].need.amounts(), self._free, strict=True)]
            if any(short):
                kept = [one or other for one, other in zip(kept, short, strict=True)]
            elif not any(needed and one for needed, one in zip(kinds, kept, strict=True)):
                return queue.popleft()
        return None
