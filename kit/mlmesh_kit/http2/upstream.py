"""The connection to the server behind, on a unix socket."""

import asyncio
import contextlib
import logging
from typing import Final

from mlmesh_kit.http2.client_connection import ClientConnection
from mlmesh_kit.http2.settings import Limits

logger = logging.getLogger(__name__)

_LIMITS: Final = Limits(window=256 << 10, header_list=128 << 10, header_block=256 << 10)
_RETRY_SECONDS: Final = 0.2


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
        _, connection = await self._loop.create_unix_connection(
            lambda: ClientConnection(self, _LIMITS, self._loop), self._path
        )
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
