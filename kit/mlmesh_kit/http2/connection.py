"""An HTTP/2 connection: reads frames, keeps the rules of RFC 9113, hands what came to the streams' exchanges."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from mlmesh_kit.http2 import frames
from mlmesh_kit.http2.calm import Calm
from mlmesh_kit.http2.faults import ConnectionFault, ErrorCode, StreamFault
from mlmesh_kit.http2.header_blocks import Fields, HeaderDecoder
from mlmesh_kit.http2.outbox import Outbox
from mlmesh_kit.http2.settings import Limits
from mlmesh_kit.http2.stream import Exchange, Stream

logger = logging.getLogger(__name__)

_LINGER_SECONDS: Final = 2.0  # after GOAWAY, for the peer to read it
_RESETS_REMEMBERED: Final = 256
_MOST_CONTINUATIONS: Final = 64
_LARGEST_OTHER: Final = 16 << 10  # a frame that is neither DATA nor header fields

_unpack = frames.FRAME_HEADER.unpack_from


class Connection(asyncio.Protocol):
    """One side of a connection. `ServerConnection` and `ClientConnection` say what differs between the two.

    Memory: bytes not yet read are below `limits.header_block` (DATA is passed on as it comes); a header block below
    twice that; bodies as the exchanges and the windows allow; unsent bytes below `outbox.MOST_UNREAD`, and what the
    exchanges queue.

    Args:
        limits: What it may cost.
        loop: Where it lives.
    """

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self.loop = loop
        self.outbox = Outbox(self)
        self.calm = Calm()
        self.streams: dict[int, Stream] = {}
        self.last_stream = 0  # the highest that the peer has opened
        self.leaves = False  # no more streams; the connection ends with the last
        self.transport: asyncio.Transport | None = None
        self.closed_at: float | None = None  # since when nothing is read any more

        self._decoder = HeaderDecoder(2 * limits.header_list)
        self._buffer = bytearray()
        self._need = 0
        self._preface = frames.PREFACE  # what is still expected of it
        self._settled = False
        self._window = limits.connection_window
        self._unacknowledged = 0
        self._skip = 0  # bytes of padding, or of an unknown frame
        self._data_left = 0  # bytes of a DATA frame that has begun
        self._data_stream: Stream | None = None
        self._data_ends = False
        self._block: list[bytes] | None = None  # of the header block that has begun
        self._block_bytes = 0
        self._block_stream = 0
        self._block_ends = False
        self._gone: dict[int, None] = {}  # streams that we have reset: what is still on its way for them is ignored
        self._connected_at = self._heard_at = loop.time()
        self._partial_since = 0.0
        self._pinged_at = 0.0
        self._handlers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._on_nothing,  # DATA is read apart
            self._on_headers,
            self._on_priority,
            self._on_rst_stream,
            self._on_settings,
            self._on_push_promise,
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            self._on_continuation,
        )

    # What the two sides do differently.

    def opened(self, number: int, fields: Fields, *, ended: bool) -> None:
        """The peer has opened a stream."""
        raise NotImplementedError

    def is_idle(self, number: int) -> bool:
        """Tells whether a stream that is not open never was."""
        raise NotImplementedError

    def ended_early(self, stream: Stream) -> None:
        """We have sent our last on a stream, the peer not yet."""

    def pinged(self, payload: bytes) -> None:
        """A PING of ours was answered."""

    def settled(self) -> None:
        """The peer's first SETTINGS have come."""

    def peer_leaves(self, last_stream: int) -> None:
        """The peer answers no streams of ours beyond `last_stream`."""

    def lost(self) -> None:
        """The connection is gone."""

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport  # type: ignore[assignment]
        self.outbox.open(transport)  # type: ignore[arg-type]

    def greet(self, values: dict[int, int]) -> None:
        """Sends SETTINGS and opens the connection's window."""
        self.outbox.write(frames.settings_frame(values))
        if self.limits.connection_window > frames.DEFAULT_WINDOW:
            self.outbox.window_update(0, self.limits.connection_window - frames.DEFAULT_WINDOW)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.closed_at is not None:
            return
        self._heard_at = self.loop.time()
        self.outbox.gather()
        try:
            self._read(data)
            self.outbox.check_unread()
        except ConnectionFault as fault:
            self.fail(fault)
        except Exception:
            logger.exception("a fault of ours while reading from a peer")
            self.fail(ConnectionFault(ErrorCode.INTERNAL_ERROR, "internal error"))
        finally:
            self.outbox.release()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.outbox.pause()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.outbox.resume()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.closed_at = self.closed_at or self.loop.time()
        self.transport = None
        self.outbox.shut()
        self._drop_streams(ErrorCode.CANCEL)
        self.lost()

    # Ending.

    def fail(self, fault: ConnectionFault) -> None:
        """Ends the connection: GOAWAY, then no more is read; the peer gets a moment to read it."""
        if self.closed_at is None:
            logger.debug("connection ended: %s", fault.message)
            self.leave(fault.code, fault.message)

    def leave(self, code: ErrorCode = ErrorCode.NO_ERROR, message: str = "") -> None:
        """Ends the connection, all streams with it."""
        if self.closed_at is not None:
            return
        self.closed_at = self.loop.time()
        self._drop_streams(code)
        self.outbox.write(frames.goaway(self.last_stream, code, message))
        self.outbox.release()
        self.outbox.shut()
        if self.transport is not None and not self.transport.is_closing():
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()

    def leave_alone(self) -> None:
        """Ends the connection unless there are streams."""
        if not self.streams:
            self.leave()

    def abort(self) -> None:
        """Drops the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def _drop_streams(self, code: ErrorCode) -> None:
        for stream in list(self.streams.values()):
            self.forget(stream)
            if stream.exchange is not None:
                stream.exchange.reset(code)

    def second(self, now: float) -> None:
        """Looks after what did not happen; called every second.

        Args:
            now: The loop's time, in seconds.
        """
        if self.closed_at is not None:
            if now - self.closed_at > _LINGER_SECONDS:
                self.abort()
            return
        self.calm.second()
        limits = self.limits
        begun = self._connected_at if not self._settled else self._partial_since
        if begun and now - begun > limits.greeting_seconds:
            self.fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a frame was begun and not ended"))
        elif now - self._heard_at > limits.idle_seconds:
            if not self._pinged_at:
                self._pinged_at = now
                self.outbox.write(frames.frame(frames.PING, 0, 0, b"anybody?"))
            elif now - self._pinged_at > limits.ping_seconds:
                self.abort()
        else:
            self._pinged_at = 0.0

    # Streams.

    def add_stream(self, number: int, exchange: Exchange | None = None) -> Stream:
        """Opens a stream."""
        stream = Stream(self, number, self.outbox.peer.window, self.limits.window)
        stream.exchange = exchange
        stream.since = self._heard_at
        self.streams[number] = stream
        return stream

    def local_end(self, stream: Stream) -> None:
        """We have sent our last on a stream."""
        stream.local_closed = True
        if stream.remote_closed:
            self.forget(stream)
        else:
            self.ended_early(stream)

    def abort_stream(self, stream: Stream, code: ErrorCode) -> None:
        """Sends RST_STREAM and forgets the stream."""
        if self.streams.get(stream.id) is stream:
            self._send_reset(stream.id, code)
            self.forget(stream)

    def progress(self, stream: Stream) -> None:
        """Data went out, or came in, on a stream."""
        stream.since = self._heard_at
        self.calm.work()

    def _send_reset(self, number: int, code: ErrorCode) -> None:
        self.outbox.write(frames.rst_stream(number, code))
        if len(self._gone) >= _RESETS_REMEMBERED:
            self._gone.pop(next(iter(self._gone)))
        self._gone[number] = None

    def forget(self, stream: Stream) -> None:
        """Takes a stream off; its exchange is not told."""
        if self.streams.pop(stream.id, None) is None:
            return
        stream.local_closed = stream.remote_closed = True
        if stream.waiting or stream.queue:
            self.outbox.forget(stream)
        self.calm.answered()
        if self.leaves and not self.streams:
            self.loop.call_soon(self.leave_alone)  # what the stream's end still writes comes first

    def _fault_stream(self, stream: Stream, fault: StreamFault) -> None:
        self.calm.frame()
        self.abort_stream(stream, fault.code)
        if stream.exchange is not None:
            stream.exchange.reset(fault.code)

    # Reading.

    def _read(self, data: bytes) -> None:
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._need:
                return
            data = bytes(buffer)
            buffer.clear()
        size = len(data)
        at = self._read_preface(data) if self._preface else 0
        while self.closed_at is None:
            if self._data_left or self._skip:
                at = self._read_rest(data, at)
                if self._data_left or self._skip:
                    self._partial_since = 0.0
                    return
            after = self._read_frame(data, at, size)
            if after < 0:
                break
            at = after
        if at < size:
            if at or not self._partial_since:
                self._partial_since = self._heard_at
            buffer += data[at:]
        elif self._block is None:
            self._partial_since = 0.0

    def _read_frame(self, data: bytes, at: int, size: int) -> int:
        """Reads the frame that begins at `at`; gives where the next begins, or -1 where `_need` bytes are not there."""
        if size - at < frames.HEADER_BYTES:
            self._need = frames.HEADER_BYTES
            return -1
        high, low, kind, flags, number = _unpack(data, at)
        length: int = high << 16 | low
        number &= frames.LARGEST_STREAM
        if length > self.limits.frame:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block_stream):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
        if not self._settled and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        begin = at + frames.HEADER_BYTES
        if kind == frames.DATA:
            if flags & frames.PADDED and length and begin >= size:
                self._need = frames.HEADER_BYTES + 1
                return -1
            return self._begin_data(data, begin, length, flags, number)
        if kind > frames.CONTINUATION:
            self.calm.frame()
            self._skip = length
            return begin
        if length > _LARGEST_OTHER:
            self._check_length(kind, length)
        end = begin + length
        if end > size:
            self._need = frames.HEADER_BYTES + length
            return -1
        self._handlers[kind](flags, number, data[begin:end])
        return end

    def _read_preface(self, data: bytes) -> int:
        got = data[: len(self._preface)]
        if not self._preface.startswith(got):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2 with prior knowledge")
        self._preface = self._preface[len(got) :]
        return len(got)

    def _check_length(self, kind: int, length: int) -> None:
        if kind not in {frames.HEADERS, frames.CONTINUATION}:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} with {length} bytes")
        if length > self.limits.header_block:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too large")

    def _begin_data(self, data: bytes, begin: int, length: int, flags: int, number: int) -> int:
        """Reads the DATA frame whose payload begins at `begin`, as far as it is there; gives where reading goes on."""
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0")
        body = length
        padding = 0
        if flags & frames.PADDED:
            if not length or data[begin] >= length:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
            padding = data[begin]
            body = length - 1 - padding
            begin += 1
        self._window -= length
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        self._unacknowledged += length
        if self._unacknowledged * 2 >= self.limits.connection_window:
            self.outbox.window_update(0, self._unacknowledged)
            self._window += self._unacknowledged
            self._unacknowledged = 0
        if not body:
            self.calm.frame()
        stream = self.streams.get(number)
        if stream is None:
            self._on_closed_data(number)
        else:
            try:
                self._check_data(stream, length, body)
            except StreamFault as fault:
                self._fault_stream(stream, fault)
                stream = None
        ends = bool(flags & frames.END_STREAM)
        end = begin + body
        if end <= len(data):
            self._skip = padding
            if stream is not None:
                self._pass_on(stream, data[begin:end], length - body, ends)
            return end
        self._data_stream = stream
        self._data_ends = ends
        self._data_left = body
        self._skip = padding
        if stream is not None and length > body:
            stream.grant(length - body)
        return begin

    def _read_rest(self, data: bytes, at: int) -> int:
        """Goes on with a frame that has begun: DATA, then what is skipped."""
        if self._data_left:
            piece = data[at : at + self._data_left]
            at += len(piece)
            self._data_left -= len(piece)
            stream = self._data_stream
            if not self._data_left:
                self._data_stream = None
            if stream is not None and not stream.remote_closed:
                self._pass_on(stream, piece, 0, self._data_ends and not self._data_left)
            if self._data_left:
                return at
        skipped = min(self._skip, len(data) - at)
        self._skip -= skipped
        return at + skipped

    def _check_data(self, stream: Stream, length: int, body: int) -> None:
        if stream.remote_closed:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
        stream.receive_window -= length
        if stream.receive_window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window")
        if stream.body_left is not None:
            stream.body_left -= body
            if stream.body_left < 0:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "more DATA than content-length says")

    def _pass_on(self, stream: Stream, piece: bytes, padding: int, ends: bool) -> None:
        exchange = stream.exchange
        if padding:
            stream.grant(padding)
        if piece:
            self.progress(stream)
            if exchange is not None:
                exchange.data_received(piece)
        if ends and not stream.remote_closed:
            if stream.body_left:
                self._fault_stream(stream, StreamFault(ErrorCode.PROTOCOL_ERROR, "less DATA than content-length says"))
                return
            self._remote_end(stream)
            if exchange is not None:
                exchange.ended()

    def _remote_end(self, stream: Stream) -> None:
        stream.remote_closed = True
        if stream.local_closed:
            self.forget(stream)

    def _on_closed_data(self, number: int) -> None:
        if self.is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA on the idle stream {number}")
        self.calm.frame()
        if number not in self._gone:
            self._send_reset(number, ErrorCode.STREAM_CLOSED)

    def _on_nothing(self, flags: int, number: int, payload: bytes) -> None:
        raise AssertionError("DATA is read apart")

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            payload = _strip(flags, payload)
        if flags & frames.END_HEADERS:
            self._on_block(number, payload, bool(flags & frames.END_STREAM))
            return
        self._block = [payload]
        self._block_bytes = len(payload)
        self._block_stream = number
        self._block_ends = bool(flags & frames.END_STREAM)
        self._partial_since = self._heard_at

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block.append(payload)
        self._block_bytes += len(payload)
        if self._block_bytes > self.limits.header_block or len(self._block) > _MOST_CONTINUATIONS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too large")
        if flags & frames.END_HEADERS:
            block, self._block = b"".join(self._block), None
            self._partial_since = 0.0
            self._on_block(number, block, self._block_ends)

    def _on_block(self, number: int, block: bytes, ended: bool) -> None:
        fields = self._decoder.decode(block)
        stream = self.streams.get(number)
        if stream is None:
            if number in self._gone:
                self.calm.frame()
            else:
                self.opened(number, fields, ended=ended)
        elif stream.remote_closed:
            self._fault_stream(stream, StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM"))
        elif ended and stream.body_left:
            self._fault_stream(stream, StreamFault(ErrorCode.PROTOCOL_ERROR, "less DATA than content-length says"))
        else:
            exchange = stream.exchange
            assert exchange is not None
            if ended:
                self._remote_end(stream)
            try:
                exchange.headers_received(fields, ended=ended)
            except StreamFault as fault:
                self._fault_stream(stream, fault)

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        self.calm.frame()
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            stream = self.streams.get(number)
            if stream is None:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not of 5 bytes")
            self._fault_stream(stream, StreamFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not of 5 bytes"))

    def _on_rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not of 4 bytes")
        stream = self.streams.get(number)
        if stream is None:
            if not number or self.is_idle(number):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on the idle stream {number}")
            self.calm.frame()
            return
        self.calm.reset()
        self.forget(stream)
        self.calm.resets -= 1  # a stream that was reset has earned nothing
        if stream.exchange is not None:
            stream.exchange.reset(frames.read_uint32(payload))

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement with settings")
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS is not of 6 bytes each")
        self.calm.frame()
        change = self.outbox.peer.apply(payload)
        self.outbox.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if change:
            for stream in list(self.streams.values()):
                try:
                    self.outbox.widen(stream, change)
                except OverflowError as error:
                    message = "a stream's window is beyond 2^31-1"
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, message) from error
        if not self._settled:
            self._settled = True
            self.settled()

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING is not of 8 bytes")
        if flags & frames.ACK:
            self.pinged(payload)
            return
        self.calm.frame()
        self.outbox.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")
        self.calm.frame()
        self.leaves = True
        self.peer_leaves(frames.read_uint32(payload) & frames.LARGEST_STREAM)
        self.leave_alone()

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not of 4 bytes")
        self.calm.frame()
        increment = frames.read_uint32(payload) & frames.LARGEST_WINDOW
        if not number:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self.outbox.widen(None, increment)
            return
        stream = self.streams.get(number)
        if stream is None:
            if self.is_idle(number):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE on the idle stream {number}")
            return
        if not increment:
            self._fault_stream(stream, StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0"))
            return
        try:
            self.outbox.widen(stream, increment)
        except OverflowError:
            self._fault_stream(stream, StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "the window is beyond 2^31-1"))


def _strip(flags: int, payload: bytes) -> bytes:
    """Takes padding and priority off the payload of HEADERS."""
    begin, end = 0, len(payload)
    if flags & frames.PADDED:
        if not payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its padding's length")
        begin, end = 1, end - payload[0]
    if flags & frames.HAS_PRIORITY:
        begin += 5
    if begin > end:
        short = begin > len(payload)
        code = ErrorCode.FRAME_SIZE_ERROR if short else ErrorCode.PROTOCOL_ERROR
        raise ConnectionFault(code, "HEADERS shorter than its padding and priority")
    return payload[begin:end]
