"""The client's side of a connection."""

import asyncio
from typing import Final, Protocol

from mlmesh_kit.http2 import frames, settings
from mlmesh_kit.http2.calm import Calm
from mlmesh_kit.http2.connection import Connection
from mlmesh_kit.http2.faults import ConnectionFault, ErrorCode
from mlmesh_kit.http2.header_blocks import Fields
from mlmesh_kit.http2.settings import Limits
from mlmesh_kit.http2.stream import Exchange, Stream

_FOR_FREE: Final = 1 << 60
_LAST_STREAM: Final = 1 << 30  # of a connection; the ids would end at 2^31


class Owner(Protocol):
    """Who keeps connections to a server."""

    def lost(self, connection: "ClientConnection") -> None:
        """A connection is gone."""


class ClientConnection(Connection):
    """A connection to a server that we trust to be one: what it sends, we have asked for.

    Args:
        owner: Is told when it is gone.
        limits: What it may cost.
        loop: Where it lives.

    Attributes:
        greeted: True once the server's SETTINGS are there, False when the connection is gone before.
    """

    def __init__(self, owner: Owner, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limits, loop)
        self.calm = Calm(_FOR_FREE, _FOR_FREE)
        self.greeted: asyncio.Future[bool] = loop.create_future()
        self._preface = b""
        self._owner = owner
        self._next = 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.outbox.write(frames.PREFACE)
        self.greet(
            {
                settings.ENABLE_PUSH: 0,
                settings.INITIAL_WINDOW_SIZE: self.limits.window,
                settings.MAX_FRAME_SIZE: self.limits.frame,
                settings.MAX_HEADER_LIST_SIZE: self.limits.header_list,
            }
        )

    @property
    def usable(self) -> bool:
        """Whether another stream may be opened."""
        return (
            self.closed_at is None
            and not self.leaves
            and self._next < _LAST_STREAM
            and len(self.streams) < self.outbox.peer.streams
        )

    def open(self, block: bytes, exchange: Exchange, *, end: bool) -> Stream:
        """Opens a stream with a request's header block; `end`: it has no body."""
        stream = self._add(exchange)
        stream.send_headers(block, end=end)
        return stream

    def ask(self, block: bytes, exchange: Exchange, message: bytes) -> Stream:
        """Opens a stream with a header block and the only message of a gRPC request."""
        stream = self._add(exchange)
        if self.outbox.message(stream, block, message):
            self.local_end(stream)
        else:
            stream.send_headers(block)
            stream.send_message(message)
        return stream

    def _add(self, exchange: Exchange) -> Stream:
        stream = self.add_stream(self._next, exchange)
        self._next += 2
        return stream

    def opened(self, number: int, fields: Fields, *, ended: bool) -> None:
        """See Connection."""
        if self.is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"the server opened stream {number}")
        self.calm.frame()

    def is_idle(self, number: int) -> bool:
        """See Connection."""
        return number >= self._next or not number & 1

    def settled(self) -> None:
        """See Connection."""
        if not self.greeted.done():
            self.greeted.set_result(True)

    def peer_leaves(self, last_stream: int) -> None:
        """See Connection: what the server has not begun may be asked again elsewhere."""
        for stream in list(self.streams.values()):
            if stream.id > last_stream:
                self.forget(stream)
                if stream.exchange is not None:
                    stream.exchange.reset(ErrorCode.REFUSED_STREAM)

    def lost(self) -> None:
        """See Connection."""
        if not self.greeted.done():
            self.greeted.set_result(False)
        self._owner.lost(self)
