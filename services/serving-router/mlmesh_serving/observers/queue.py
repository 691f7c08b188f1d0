"""The bounded queue between the path of a prediction and what looks at it later."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """First in, first out; what does not fit is not taken.

    The newest is dropped, not the oldest: refusing costs nothing, and what was taken stays a gapless past.

    Args:
        max_items: Items that it holds.
        max_bytes: Bytes that they hold together.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_filling(self) -> bool:
        """Whether more than half of the room is taken."""
        return 2 * len(self._items) > self._max_items or 2 * self.bytes > self._max_bytes

    def put(self, item: T, size: int) -> bool:
        """Takes an item, or tells that there is no room.

        Args:
            item: What is queued.
            size: Its bytes.
        """
        if len(self._items) >= self._max_items or self.bytes + size > self._max_bytes:
            return False
        self._items.append((item, size))
        self.bytes += size
        return True

    def take(self, max_items: int, max_bytes: int) -> list[T]:
        """Gives the oldest items: at least one if there is one, then as many as stay within both numbers."""
        taken: list[T] = []
        room = max_bytes
        while self._items and len(taken) < max_items and (not taken or self._items[0][1] <= room):
            item, size = self._items.popleft()
            self.bytes -= size
            room -= size
            taken.append(item)
        return taken

    def clear(self) -> list[T]:
        """Gives all items and holds none."""
        items = [item for item, _ in self._items]
        self._items.clear()
        self.bytes = 0
        return items
