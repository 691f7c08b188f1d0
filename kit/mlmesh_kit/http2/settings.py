"""SETTINGS (RFC 9113, section 6.5): what the peer told us, checked, and what we tell it."""

from dataclasses import dataclass
from typing import Final

from mlmesh_kit.http2 import frames
from mlmesh_kit.http2.faults import ConnectionFault, ErrorCode

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost us. The figures are for each connection.

    Attributes:
        streams: Open at the same time; more are refused (REFUSED_STREAM: clients try again).
        window: Bytes that a peer may send on a new stream before we say more. Times `streams`: what may lie about.
        connection_window: Bytes that may be on their way on all streams together.
        frame: Largest frame that we take, in bytes. Large ones save work with large messages; they are not gathered.
        header_list: Largest header list that is served; a larger one is answered with RESOURCE_EXHAUSTED.
        header_block: Bytes of one header block, encoded; beyond them the connection ends.
        message: Largest message that is gathered, in bytes.
        gathered: Bytes of messages being gathered, beyond the windows of their streams. At least `message`. Streams
            that want more wait for their turn.
        greeting_seconds: Time for the preface and the first SETTINGS, and for any frame or header block to arrive
            whole once it has begun.
        idle_seconds: Silence after which a PING asks whether somebody is there.
        ping_seconds: Time to answer it.
        stall_seconds: Time without any progress after which a peer that does not read, or a request that does not
            come, is given up.
    """

    streams: int = 1024
    window: int = frames.DEFAULT_WINDOW
    connection_window: int = 16 << 20
    frame: int = 4 << 20
    header_list: int = 32 << 10
    header_block: int = 64 << 10
    message: int = 64 << 20
    gathered: int = 128 << 20
    greeting_seconds: float = 10.0
    idle_seconds: float = 60.0
    ping_seconds: float = 20.0
    stall_seconds: float = 60.0


class PeerSettings:
    """What the peer has told us so far; the defaults until it does."""

    __slots__ = ("frame", "streams", "window")

    def __init__(self) -> None:
        self.window = frames.DEFAULT_WINDOW
        self.frame = frames.DEFAULT_FRAME
        self.streams = frames.LARGEST_STREAM

    def apply(self, payload: bytes) -> int:
        """Takes the values of a SETTINGS frame; gives by how much the window of each open stream changes.

        HEADER_TABLE_SIZE and MAX_HEADER_LIST_SIZE ask nothing of us: we write without the table, and gRPC's errors are
        kept below every client's limit.

        Raises:
            ConnectionFault: A value is out of its range.
        """
        before = self.window
        for name, value in frames.read_settings(payload):
            if name == INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is above 2^31-1")
                self.window = value
            elif name == MAX_FRAME_SIZE:
                if not frames.DEFAULT_FRAME <= value <= frames.LARGEST_FRAME:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is not from 2^14 to 2^24-1")
                self.frame = value
            elif name == MAX_CONCURRENT_STREAMS:
                self.streams = value
            elif name == ENABLE_PUSH and value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        return self.window - before
