"""What leaves a connection: frames at once, DATA as far as the windows allow, stream after stream in turns."""

import asyncio
from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Final

from mlmesh_kit.http2 import frames
from mlmesh_kit.http2.faults import ConnectionFault, ErrorCode
from mlmesh_kit.http2.header_blocks import NO_TABLE
from mlmesh_kit.http2.settings import PeerSettings
from mlmesh_kit.http2.stream import Stream

if TYPE_CHECKING:
    from mlmesh_kit.http2.connection import Connection

HIGH_WATER: Final = 256 << 10
"""Bytes that lie in the transport before DATA waits."""
MOST_UNREAD: Final = 2 << 20
"""Bytes that lie in the transport (by frames that do not wait: answers to PING, errors) before the peer is given up."""
_LARGEST_PIECE: Final = 256 << 10
_SMALL: Final = 64 << 10

_pack = frames.pack_header
pack_prefix = Struct(">BI").pack
"""Compressed flag and length before each gRPC message."""


class Outbox:
    """Writes for one connection.

    While bytes are being read, what is written is gathered, so that a packet of many requests gets one answer.

    Attributes:
        window: Of the connection: bytes that the peer takes now, over all streams.
        peer: Its settings.
    """

    __slots__ = (
        "_batch",
        "_connection",
        "_fresh",
        "_gathered",
        "_paused",
        "_pumping",
        "_round",
        "_transport",
        "peer",
        "window",
    )

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._batch: list[bytes | memoryview] | None = None
        self._gathered = 0
        self._paused = False
        self._fresh = True
        self._pumping = False
        self._round: deque[Stream] = deque()
        self.window = frames.DEFAULT_WINDOW
        self.peer = PeerSettings()

    def open(self, transport: asyncio.Transport) -> None:
        """Begins."""
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._transport = transport

    def shut(self) -> None:
        """Ends: what is written from now on is dropped."""
        self._transport = None
        self._batch = None
        self._round.clear()

    @property
    def stalled(self) -> bool:
        """Whether something waits for the peer to read or to open a window."""
        return self._paused or bool(self._round)

    def gather(self) -> None:
        """Keeps what is written until `release`."""
        self._batch = []
        self._gathered = 0

    def release(self) -> None:
        """Writes what was gathered."""
        batch, self._batch = self._batch, None
        if not batch or self._transport is None:
            return
        if len(batch) == 1:
            self._transport.write(batch[0])
        elif self._gathered <= _SMALL:
            self._transport.write(b"".join(batch))
        else:
            self._transport.writelines(batch)

    def write(self, data: bytes | memoryview) -> None:
        """Writes bytes, which are whole frames."""
        if self._batch is not None:
            self._batch.append(data)
            self._gathered += len(data)
            if self._gathered > HIGH_WATER:
                self.release()
                self.gather()
        elif self._transport is not None:
            self._transport.write(data)

    def check_unread(self) -> None:
        """Gives up on a peer that makes us write and does not read.

        Raises:
            ConnectionFault: Too much lies in the transport.
        """
        if self._paused and self._transport is not None and self._transport.get_write_buffer_size() > MOST_UNREAD:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the peer does not read")

    def headers(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """Writes a header block."""
        if self._fresh:
            self._fresh = False
            block = NO_TABLE + block
        self.write(frames.header_frames(stream.id, block, end_stream=end, largest=self.peer.frame))

    def window_update(self, stream: int, increment: int) -> None:
        """Lets the peer send more."""
        self.write(frames.window_update(stream, increment))

    def message(self, stream: Stream, head: bytes, message: bytes, trailers: bytes = b"") -> bool:
        """Sends one side of a unary call in one piece: headers, a gRPC message, trailers.

        Args:
            stream: Of the call; nothing has been sent on it.
            head: Header block.
            message: Serialized.
            trailers: Header block; empty: none, DATA ends the stream.

        Returns:
            Whether it could; if not, nothing has been written.
        """
        size = len(message) + 5
        if (
            size > self.window
            or size > stream.send_window
            or size > frames.DEFAULT_FRAME
            or len(head) > frames.DEFAULT_FRAME
            or len(trailers) > frames.DEFAULT_FRAME
            or self._fresh
            or self._paused
            or self._round
        ):
            return False
        self.window -= size
        stream.send_window -= size
        number = stream.id
        parts = [
            _pack(0, len(head), frames.HEADERS, frames.END_HEADERS, number),
            head,
            _pack(0, size, frames.DATA, 0 if trailers else frames.END_STREAM, number),
            pack_prefix(0, size - 5),
            message,
        ]
        if trailers:
            parts += (_pack(0, len(trailers), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number), trailers)
        self.write(b"".join(parts))
        return True

    def push(self, stream: Stream) -> None:
        """Sends what the stream has queued, or lets it wait for its turn."""
        if not stream.waiting and (stream.send_window > 0 or not stream.queue):
            stream.waiting = True
            self._round.append(stream)
        self.pump()

    def pump(self) -> None:
        """Sends what the windows and the transport allow, a piece of each stream in turn."""
        if self._pumping:  # called by who hears that a piece has left
            return
        self._pumping = True
        try:
            while self._round and not self._paused:
                if self.window <= 0 and self._round[0].queue:
                    return
                stream = self._round.popleft()
                stream.waiting = False
                if stream.queue:
                    if stream.send_window <= 0:  # its next WINDOW_UPDATE brings it back
                        continue
                    self._send_piece(stream)
                if stream.local_closed:
                    continue
                if stream.queue:
                    if not stream.waiting:
                        stream.waiting = True
                        self._round.append(stream)
                elif stream.trailers is not None:
                    self._end(stream)
        finally:
            self._pumping = False

    def _send_piece(self, stream: Stream) -> None:
        piece = stream.queue[0]
        size = min(len(piece), self.window, stream.send_window, self.peer.frame, _LARGEST_PIECE)
        if size == len(piece):
            stream.queue.popleft()
        else:
            stream.queue[0] = piece[size:]
            piece = piece[:size]
        stream.queued -= size
        stream.send_window -= size
        self.window -= size
        ends = not stream.queue and stream.trailers == b""
        header = _pack(size >> 16, size & 0xFFFF, frames.DATA, frames.END_STREAM if ends else 0, stream.id)
        if size <= frames.DEFAULT_FRAME:
            self.write(header + piece)
        else:
            self.write(header)
            self.write(piece)
        self._connection.progress(stream)
        if ends:
            self._connection.local_end(stream)
        if stream.exchange is not None:
            stream.exchange.data_sent(size)

    def _end(self, stream: Stream) -> None:
        if stream.trailers:
            self.headers(stream, stream.trailers, end=True)
        else:
            self.write(frames.frame(frames.DATA, frames.END_STREAM, stream.id))
        self._connection.local_end(stream)

    def widen(self, stream: Stream | None, increment: int) -> None:
        """Takes the peer's WINDOW_UPDATE.

        Args:
            stream: None: the connection.
            increment: More bytes that it takes.

        Raises:
            ConnectionFault: The connection's window is beyond 2^31-1.
            OverflowError: The stream's is.
        """
        if stream is None:
            self.window += increment
            if self.window > frames.LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is beyond 2^31-1")
            self.pump()
            return
        stream.send_window += increment
        if stream.send_window > frames.LARGEST_WINDOW:
            raise OverflowError
        if stream.queue:
            self.push(stream)

    def forget(self, stream: Stream) -> None:
        """Drops what a stream has queued."""
        stream.queue.clear()
        stream.queued = 0
        if stream.waiting:
            stream.waiting = False
            self._round.remove(stream)

    def pause(self) -> None:
        """The transport is full."""
        self._paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self._paused = False
        self.pump()
