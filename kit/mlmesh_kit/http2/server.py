"""The server: takes connections, looks after them every second, and drains them."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Final

from mlmesh_kit.http2.methods import Method
from mlmesh_kit.http2.server_connection import ServerConnection
from mlmesh_kit.http2.settings import Limits
from mlmesh_kit.http2.upstream import Upstream

_BACKLOG: Final = 2048


class Http2Server:
    """gRPC without TLS, with prior knowledge.

    Args:
        methods: Answered here, by path.
        loop: Where it lives; the methods' handlers run on it.
        limits: Of each connection.
        most_calls: Calls of `methods` in flight, over all connections, beyond which the answer is RESOURCE_EXHAUSTED.
        upstream: Answers every other method; None: they are UNIMPLEMENTED.

    Attributes:
        calls: In flight now.
        connections: Open now.
        draining: No new connections.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        loop: asyncio.AbstractEventLoop,
        *,
        limits: Limits | None = None,
        most_calls: int = 1024,
        upstream: Upstream | None = None,
    ) -> None:
        self.methods = {path.encode(): method for path, method in methods.items()}
        self.loop = loop
        self.limits = limits or Limits()
        self.most_calls = most_calls
        self.upstream = upstream
        self.calls = 0
        self.connections: set[ServerConnection] = set()
        self.draining = False
        self._alone = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serves what comes to a socket that listens."""
        self._server = await self.loop.create_server(lambda: ServerConnection(self), sock=listener, backlog=_BACKLOG)
        self._timer = self.loop.call_later(1.0, self._second)

    def _second(self) -> None:
        self._timer = self.loop.call_later(1.0, self._second)
        now = self.loop.time()
        for connection in list(self.connections):
            connection.second(now)
        if self.upstream is not None:
            self.upstream.second(now)

    def left(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._alone.set()

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new connections, lets the calls in flight end, then ends them.

        Args:
            grace_seconds: How long they get.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.drain()
        await self._wait(grace_seconds)
        for connection in list(self.connections):
            connection.shut_calls()
            connection.leave()
        await self._wait(0.5)  # for what was written last to be read
        for connection in list(self.connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()

    async def _wait(self, seconds: float) -> None:
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._alone.wait(), seconds)
