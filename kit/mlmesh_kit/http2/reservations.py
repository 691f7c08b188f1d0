"""Room for the messages that a connection gathers."""

from collections import deque

from mlmesh_kit.http2.stream import Stream


class Reservations:
    """Lets streams send whole messages, as many at once as there is room for; the others wait for their turn.

    A message's length is known from its first bytes. Each stream may send its first window without asking, the rest
    only once there is room for all of it; so what has begun can always end, and memory is bounded.

    Args:
        room: Bytes for all messages together, beyond the streams' first windows.
    """

    __slots__ = ("_held", "_room", "_waiting")

    def __init__(self, room: int) -> None:
        self._room = room
        self._held: dict[Stream, int] = {}
        self._waiting: deque[tuple[Stream, int]] = deque()

    def ask(self, stream: Stream, size: int) -> None:
        """Grants `size` bytes to the stream, now or when it is its turn."""
        if self._waiting or size > self._room:
            self._waiting.append((stream, size))
        else:
            self._grant(stream, size)

    def release(self, stream: Stream) -> None:
        """Gives back what the stream had or waited for."""
        held = self._held.pop(stream, None)
        if held is None:
            if self._waiting:
                self._waiting = deque(entry for entry in self._waiting if entry[0] is not stream)
        else:
            self._room += held
        while self._waiting and self._waiting[0][1] <= self._room:
            self._grant(*self._waiting.popleft())

    def _grant(self, stream: Stream, size: int) -> None:
        self._room -= size
        self._held[stream] = size
        stream.grant(size)
