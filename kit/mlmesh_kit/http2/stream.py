"""A stream of a connection: its state, its windows, and what waits to be sent on it."""

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from mlmesh_kit.http2.faults import ErrorCode
from mlmesh_kit.http2.header_blocks import Fields

if TYPE_CHECKING:
    from mlmesh_kit.http2.connection import Connection

_COPIED: Final = 16 << 10  # a smaller message is copied rather than sent in a frame apart from its prefix


class Exchange(Protocol):
    """Who is behind a stream. None of these may block; what they raise ends the connection."""

    def headers_received(self, fields: Fields, *, ended: bool) -> None:
        """Header fields after those that opened the stream: a response's, or trailers."""

    def data_received(self, data: bytes) -> None:
        """A piece of the body. Whoever is done with it says so by `Stream.consumed`."""

    def ended(self) -> None:
        """The peer's last DATA has come (not called where trailers ended the stream)."""

    def reset(self, code: int) -> None:
        """The stream is gone: the peer, or the connection's end, has reset it."""

    def data_sent(self, size: int) -> None:
        """So many bytes of what was queued have left."""


class Stream:
    """One stream; made by its connection.

    Attributes:
        id: Odd where the client opened it.
        send_window: Bytes that the peer takes now; below 0 after it made its windows smaller.
        receive_window: Bytes that the peer may send now.
        remote_closed: The peer has sent its last.
        local_closed: We have sent our last (or queued it: see `finishing`).
        body_left: Bytes of body that `content-length` promised and that have not come; None: it promised nothing.
        queue: What waits for the window.
        queued: Bytes in it.
        trailers: The block that follows the queue; b"": nothing, END_STREAM is on the last DATA; None: not known yet.
        since: Loop's time of the last progress in either direction.
    """

    __slots__ = (
        "body_left",
        "connection",
        "exchange",
        "id",
        "local_closed",
        "queue",
        "queued",
        "receive_window",
        "remote_closed",
        "send_window",
        "since",
        "trailers",
        "unacknowledged",
        "waiting",
    )

    def __init__(self, connection: "Connection", identifier: int, send_window: int, receive_window: int) -> None:
        self.connection = connection
        self.id = identifier
        self.exchange: Exchange | None = None
        self.send_window = send_window
        self.receive_window = receive_window
        self.remote_closed = False
        self.local_closed = False
        self.body_left: int | None = None
        self.queue: deque[memoryview] = deque()
        self.queued = 0
        self.trailers: bytes | None = None
        self.unacknowledged = 0
        self.waiting = False  # in the outbox's round
        self.since = 0.0

    def send_headers(self, block: bytes, *, end: bool = False) -> None:
        """Sends header fields that nothing queued precedes; `end` closes our side."""
        self.connection.outbox.headers(self, block, end=end)
        if end:
            self.connection.local_end(self)

    def send_data(self, data: bytes | memoryview) -> None:
        """Queues a piece of the body; it leaves as the windows allow, and `Exchange.data_sent` tells."""
        if data:
            self.queue.append(memoryview(data))
            self.queued += len(data)
            self.connection.outbox.push(self)

    def send_message(self, message: bytes, trailers: bytes = b"") -> None:
        """Queues the only message of our side of a gRPC call, and closes the side after it.

        Args:
            message: Serialized.
            trailers: As of `finish`.
        """
        prefix = b"\x00" + len(message).to_bytes(4, "big")
        for piece in (prefix + message,) if len(message) < _COPIED else (prefix, message):
            self.queue.append(memoryview(piece))
            self.queued += len(piece)
        self.finish(trailers)

    def finish(self, trailers: bytes = b"") -> None:
        """Closes our side after all that is queued.

        Args:
            trailers: Header block; empty: none.
        """
        self.trailers = trailers
        self.connection.outbox.push(self)

    def consumed(self, size: int) -> None:
        """Lets the peer send `size` more bytes, soon."""
        if self.remote_closed:
            return
        self.unacknowledged += size
        if self.unacknowledged * 2 >= self.connection.limits.window:
            self.grant(0)

    def grant(self, size: int) -> None:
        """Lets the peer send `size` more bytes, and what was consumed, now."""
        if self.remote_closed:
            return
        increment = size + self.unacknowledged
        self.unacknowledged = 0
        if increment:
            self.receive_window += increment
            self.connection.outbox.window_update(self.id, increment)

    def abort(self, code: ErrorCode) -> None:
        """Sends RST_STREAM and forgets the stream; its exchange is not told."""
        self.connection.abort_stream(self, code)
