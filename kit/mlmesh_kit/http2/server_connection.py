"""The server's side of a connection: streams become calls, answered here or relayed."""

import asyncio
from typing import TYPE_CHECKING, Final

from mlmesh_kit.http2 import frames, settings
from mlmesh_kit.http2.call import UnaryCall
from mlmesh_kit.http2.connection import Connection
from mlmesh_kit.http2.faults import ConnectionFault, ErrorCode, StreamFault
from mlmesh_kit.http2.header_blocks import Fields
from mlmesh_kit.http2.relay import relay
from mlmesh_kit.http2.request_head import read_request
from mlmesh_kit.http2.reservations import Reservations
from mlmesh_kit.http2.stream import Stream

if TYPE_CHECKING:
    from mlmesh_kit.http2.server import Http2Server

_DRAIN_PING: Final = b"draining"
_DRAIN_SECONDS: Final = 1.0  # for the answer to that PING


class ServerConnection(Connection):
    """A client's connection.

    Args:
        door: The server that it came to.
    """

    def __init__(self, door: "Http2Server") -> None:
        super().__init__(door.limits, door.loop)
        self.door = door
        self.reservations = Reservations(door.limits.gathered)
        self._draining_since: float | None = None

    @property
    def peer(self) -> str:
        """Address of the client."""
        name = self.transport.get_extra_info("peername") if self.transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.door.connections.add(self)
        limits = self.limits
        self.greet(
            {
                settings.MAX_CONCURRENT_STREAMS: limits.streams,
                settings.INITIAL_WINDOW_SIZE: limits.window,
                settings.MAX_FRAME_SIZE: limits.frame,
                settings.MAX_HEADER_LIST_SIZE: limits.header_list,
            }
        )
        if self.door.draining:
            self.leave()

    def opened(self, number: int, fields: Fields, *, ended: bool) -> None:
        """See Connection: a request."""
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"the client opened stream {number}, an even one")
        if number <= self.last_stream:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS on the closed stream {number}")
        self.last_stream = number
        if self.leaves or len(self.streams) >= self.limits.streams:
            self.calm.frame()
            self._send_reset(number, ErrorCode.REFUSED_STREAM)
            return
        stream = self.add_stream(number)
        stream.remote_closed = ended
        try:
            head = read_request(fields)
            if head.content_length is not None:
                stream.body_left = head.content_length
                if ended and head.content_length:
                    raise StreamFault(ErrorCode.PROTOCOL_ERROR, "no DATA, but content-length")
        except StreamFault as fault:
            self._fault_stream(stream, fault)
            return
        method = self.door.methods.get(head.path)
        if method is None:
            relay(self.door.upstream, stream, head)
            return
        call = UnaryCall(self, stream, head, method)
        stream.exchange = call
        call.begin()
        if ended:
            call.ended()

    def is_idle(self, number: int) -> bool:
        """See Connection."""
        return number > self.last_stream or not number & 1

    def ended_early(self, stream: Stream) -> None:
        """See Connection: the answer is complete, the request is not and need not be (RFC 9113, section 8.1)."""
        self._send_reset(stream.id, ErrorCode.NO_ERROR)
        self.forget(stream)

    def lost(self) -> None:
        """See Connection."""
        self.door.left(self)

    def drain(self) -> None:
        """Lets the client know that it should go: first with no last stream, so that what is on its way is served."""
        if self._draining_since is not None or self.closed_at is not None:
            return
        self._draining_since = self.loop.time()
        self.outbox.write(frames.goaway(frames.LARGEST_STREAM, ErrorCode.NO_ERROR, "the service is shutting down"))
        self.outbox.write(frames.frame(frames.PING, 0, 0, _DRAIN_PING))

    def pinged(self, payload: bytes) -> None:
        """See Connection: all that the client sent before it knew has been read."""
        if payload == _DRAIN_PING and self._draining_since is not None:
            self._refuse()

    def _refuse(self) -> None:
        if self.leaves:
            return
        self.leaves = True
        if self.streams:
            self.outbox.write(frames.goaway(self.last_stream, ErrorCode.NO_ERROR))
        else:
            self.leave()

    def shut_calls(self) -> None:
        """Ends what is in flight: the time for draining is over."""
        for stream in list(self.streams.values()):
            if isinstance(stream.exchange, UnaryCall):
                stream.exchange.shut()

    def second(self, now: float) -> None:
        """See Connection."""
        super().second(now)
        if self._draining_since is not None and now - self._draining_since > _DRAIN_SECONDS:
            self._refuse()
        for stream in list(self.streams.values()):
            if isinstance(stream.exchange, UnaryCall):
                stream.exchange.second(now)
