"""The connection to the server behind: HTTP/2's client side, on a unix socket."""

import asyncio
import contextlib
import logging
from typing import Final

from mlmesh_kit.http2 import frames, settings
from mlmesh_kit.http2.calm import Calm
from mlmesh_kit.http2.connection import Connection
from mlmesh_kit.http2.faults import ConnectionFault, ErrorCode
from mlmesh_kit.http2.header_blocks import Fields
from mlmesh_kit.http2.settings import Limits
from mlmesh_kit.http2.stream import Exchange, Stream

logger = logging.getLogger(__name__)

_LIMITS: Final = Limits(window=256 << 10, header_list=128 << 10, header_block=256 << 10)
_FOR_FREE: Final = 1 << 60
_LAST_STREAM: Final = 1 << 30  # of a connection; the ids would end at 2^31
_RETRY_SECONDS: Final = 0.2


class ClientConnection(Connection):
    """A connection to a server that we trust.

    Args:
        owner: Is told when it is gone.
        loop: Where it lives.
    """

    def __init__(self, owner: "Upstream", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(_LIMITS, loop)
        self.calm = Calm(_FOR_FREE, _FOR_FREE)  # what it sends, other clients may have asked for
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
        stream = self.add_stream(self._next, exchange)
        self._next += 2
        stream.send_headers(block, end=end)
        return stream

    def opened(self, number: int, fields: Fields, *, ended: bool) -> None:
        """See Connection."""
        if self.is_idle(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"the server opened stream {number}")
        self.calm.frame()

    def is_idle(self, number: int) -> bool:
        """See Connection."""
        return number >= self._next or not number & 1

    def lost(self) -> None:
        """See Connection."""
        self._owner.lost(self)


class Upstream:
    """Keeps a connection to the server behind.

    Args:
        path: Of its unix socket.
        loop: Where it lives.
    """

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._connection: ClientConnection | None = None
        self._connections: set[ClientConnection] = set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Connects.

        Raises:
            OSError: Nobody listens.
        """
        _, connection = await self._loop.create_unix_connection(lambda: ClientConnection(self, self._loop), self._path)
        self._connection = connection
        self._connections.add(connection)

    @property
    def connection(self) -> ClientConnection | None:
        """A connection that takes another stream; None: not now."""
        found = self._connection
        if found is not None and found.usable:
            return found
        self._reopen()
        return None

    def _reopen(self) -> None:
        if not self._closing and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._open_again(), name="upstream")

    async def _open_again(self) -> None:
        while not self._closing:
            try:
                await self.open()
                return
            except OSError as error:
                logger.warning("the server behind is not there: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    def lost(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if connection is self._connection:
            self._connection = None
            self._reopen()

    def second(self, now: float) -> None:
        """Looks after what did not happen; called every second."""
        for connection in list(self._connections):
            connection.second(now)

    async def close(self) -> None:
        """Ends the connections, and what is in flight on them."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for connection in list(self._connections):
            connection.leave()
            connection.abort()
