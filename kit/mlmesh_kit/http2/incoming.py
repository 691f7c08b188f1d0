"""A message that comes in pieces (gRPC over HTTP/2: Length-Prefixed-Message)."""

from typing import Final

from mlmesh_kit.errors import Internal, ResourceExhausted, Unimplemented

_PREFIX: Final = 5  # bytes before each message: compressed or not, and the length
_TRICKLE: Final = 512  # pieces below it are joined as they come, lest a byte cost an object


class IncomingMessage:
    """The only message of one side of a unary call.

    Args:
        limit: Most bytes that it may have.

    Attributes:
        size: Bytes that have come, with the prefix.
    """

    __slots__ = ("_expected", "_limit", "_parts", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes | bytearray] = []
        self._expected = -1  # bytes with the prefix, once known
        self.size = 0

    def add(self, data: bytes) -> int:
        """Takes a piece.

        Returns:
            Bytes that are still to come, when the piece has told so; else 0.

        Raises:
            ResourceExhausted: It will be larger than the limit.
            Unimplemented: There is more than one message.
        """
        parts = self._parts
        if len(data) >= _TRICKLE or not parts:
            parts.append(data)
        elif isinstance(parts[-1], bytearray):
            parts[-1] += data
        else:
            parts.append(bytearray(data))
        self.size += len(data)
        if self._expected < 0:
            return self._read_prefix()
        if self.size > self._expected:
            raise Unimplemented("a unary call has one message, and there came more")
        return 0

    def _read_prefix(self) -> int:
        if self.size < _PREFIX:
            return 0
        first = self._parts[0] if len(self._parts[0]) >= _PREFIX else b"".join(self._parts)
        length = int.from_bytes(first[1:_PREFIX], "big")
        if length > self._limit:
            raise ResourceExhausted(f"the message has {length} bytes; at most {self._limit} are taken")
        self._expected = length + _PREFIX
        missing = self._expected - self.size
        if missing < 0:
            raise Unimplemented("a unary call has one message, and there came more")
        return missing

    def take(self) -> tuple[int, bytes]:
        """Gives the compressed flag (0 or 1, if it is sound) and the bytes, once all have come.

        Raises:
            Unimplemented: There is no message.
            Internal: It ended before its length.
        """
        parts, self._parts = self._parts, []
        if not self.size:
            raise Unimplemented("a unary call has one message, and there came none")
        if self.size != self._expected:
            raise Internal("the message ended before its length")
        first = parts[0]
        if len(parts) == 1:
            return first[0], bytes(first[_PREFIX:])
        if len(first) >= _PREFIX:
            parts[0] = first[_PREFIX:]
            return first[0], b"".join(parts)
        return first[0], b"".join(parts)[_PREFIX:]
