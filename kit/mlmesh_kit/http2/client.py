"""Unary gRPC calls as bytes to a server elsewhere, over HTTP/2; without TLS unless whoever uses it connects with it."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from mlmesh_kit.errors import InvalidArgument, ResourceExhausted, Unavailable
from mlmesh_kit.http2.client_call import ClientCall
from mlmesh_kit.http2.client_connection import ClientConnection
from mlmesh_kit.http2.header_blocks import encode
from mlmesh_kit.http2.metadata import Metadata, encode_metadata
from mlmesh_kit.http2.reservations import Reservations
from mlmesh_kit.http2.settings import Limits

_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_DEAD_SECONDS: Final = 20  # bytes that are not acknowledged for so long: the other machine is gone
_PATHS_REMEMBERED: Final = 256
_NEVER: Final = float("inf")


class Connect(Protocol):
    """Opens the connections of a client."""

    async def __call__(self, make: Callable[[], ClientConnection]) -> tuple[asyncio.BaseTransport, ClientConnection]:
        """Connects, as `loop.create_connection` does.

        Args:
            make: The protocol's factory.

        Raises:
            OSError: It cannot; the message is told to those who wait.
        """
        ...


class RawClient:
    """Calls one server. Made, and used, on the event loop.

    Calls share a few connections, which are opened when they are needed and again when they are lost. A call that the
    server has not begun with (it said so, by REFUSED_STREAM or GOAWAY) is sent again, once; any other failure is the
    caller's to handle. While nobody listens, calls fail at once, and a connection is tried now and then.

    Args:
        address: `host:port`; an IPv6 address in brackets.
        connections: Open at the same time, at most. One is enough until the server's limit of streams is reached.
        waiting: Calls that wait for a connection, or for a stream on one, beyond which they are RESOURCE_EXHAUSTED.
        message_bytes: Largest answer.
        secure: Whether requests say that they come over TLS.
        connect: Opens the connections; None: to the address, without TLS.

    Raises:
        InvalidArgument: The address is none.
    """

    def __init__(
        self,
        address: str,
        *,
        connections: int = 4,
        waiting: int = 1024,
        message_bytes: int = 64 << 20,
        secure: bool = False,
        connect: Connect | None = None,
    ) -> None:
        self.address = address
        self._host, self._port = _parse(address)
        self.loop = asyncio.get_running_loop()
        self.limits = Limits(
            window=256 << 10,
            header_list=128 << 10,
            header_block=256 << 10,
            message=message_bytes,
            gathered=2 * message_bytes,
            idle_seconds=_NEVER,  # TCP itself looks whether the other side is there: servers count PINGs as abuse
        )
        self.reservations = Reservations(self.limits.gathered)
        self._scheme = b"https" if secure else b"http"
        self._connector = connect or self._create
        self._most = connections
        self._most_waiting = waiting
        self._connections: list[ClientConnection] = []
        self._waiting: deque[ClientCall] = deque()
        self._opening: asyncio.Task[None] | None = None
        self._heads: dict[str, bytes] = {}
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0
        self._refusal = ""
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def call(
        self, method: str, message: bytes, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> "asyncio.Future[bytes]":
        """Calls a method.

        Args:
            method: `/package.Service/Method`.
            message: Serialized request.
            timeout: Seconds for the answer; the server is told. None: any.
            metadata: Sent along; bytes under names that end in `-bin`.

        Returns:
            A future of the serialized answer. It may get any `ServiceError`: what the server answered, with its
            details, or UNAVAILABLE (no connection), DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED. Cancelling it cancels the
            call.

        Raises:
            InvalidArgument: The metadata cannot be sent.
        """
        head = self._heads.get(method)
        if head is None:
            head = self._head(method)
        more = encode_metadata(metadata)
        if more:
            head += encode(more)
        answer: asyncio.Future[bytes] = self.loop.create_future()
        deadline = None if timeout is None else self.loop.time() + timeout
        self.submit(ClientCall(self, head, message, deadline, answer))
        return answer

    def submit(self, call: ClientCall) -> None:
        """Sends a call, or lets it wait for a connection."""
        connection = self._usable() if not self._waiting else None
        if connection is not None:
            call.send(connection)
        elif self._closed:
            call.fail(Unavailable(f"the client of {self.address} is closed"))
        elif len(self._waiting) >= self._most_waiting:
            call.fail(ResourceExhausted(f"{self._most_waiting} calls wait for {self.address} already"))
        else:
            self._waiting.append(call)
            self._send_waiting()

    def freed(self) -> None:
        """A call has left its stream."""
        if self._waiting:
            self._send_waiting()

    def drop(self, call: ClientCall) -> None:
        """A call does not wait any more."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(call)

    async def close(self) -> None:
        """Ends the connections; calls in flight are UNAVAILABLE."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._opening
        self._fail_waiting(f"the client of {self.address} is closed")
        for connection in list(self._connections):
            connection.leave()
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()

    # Connections.

    def _usable(self) -> ClientConnection | None:
        """Gives the connection with the fewest streams that takes another one."""
        best: ClientConnection | None = None
        for connection in self._connections:
            if connection.usable and (best is None or len(connection.streams) < len(best.streams)):
                best = connection
        return best

    def _send_waiting(self) -> None:
        while self._waiting:
            connection = self._usable()
            if connection is None:
                self._open()
                return
            self._waiting.popleft().send(connection)

    def _fail_waiting(self, why: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.fail(Unavailable(why))

    def _open(self) -> None:
        """Opens another connection, where that may be; where there is none, those who wait are told."""
        serving = sum(connection.closed_at is None and not connection.leaves for connection in self._connections)
        if self._opening is not None or self._closed or serving >= self._most:
            return
        if self.loop.time() < self._not_before:
            if not serving:
                self._fail_waiting(self._refusal)
            return
        self._opening = self.loop.create_task(self._connect(), name=f"connect {self.address}")
        if self._timer is None:
            self._timer = self.loop.call_later(1.0, self._second)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await self._connection()
        except OSError as error:  # a timeout is one, too
            reason = error.strerror or str(error) or "no answer in time"
            self._refusal = f"{self.address} cannot be reached: {reason}"
            self._not_before = self.loop.time() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        else:
            self._pause = _FIRST_PAUSE
            self._connections.append(connection)
        finally:
            self._opening = None
        self._send_waiting()

    async def _connection(self) -> ClientConnection:
        transport, connection = await self._connector(lambda: ClientConnection(self, self.limits, self.loop))
        try:
            _watch_over(transport.get_extra_info("socket"))
            if not await connection.greeted or connection.closed_at is not None:
                raise ConnectionError("it does not speak HTTP/2")
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _create(self, make: Callable[[], ClientConnection]) -> tuple[asyncio.BaseTransport, ClientConnection]:
        return await self.loop.create_connection(make, self._host, self._port)

    def lost(self, connection: ClientConnection) -> None:
        """See Owner."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._send_waiting()

    def _second(self) -> None:
        self._timer = self.loop.call_later(1.0, self._second)
        now = self.loop.time()
        for connection in list(self._connections):
            connection.second(now)

    def _head(self, method: str) -> bytes:
        head = encode(
            [
                (b":method", b"POST"),
                (b":scheme", self._scheme),
                (b":path", method.encode("ascii")),
                (b":authority", self.address.encode("ascii")),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"mlmesh"),
                (b"grpc-accept-encoding", b"identity"),
            ]
        )
        if len(self._heads) < _PATHS_REMEMBERED:
            self._heads[method] = head
        return head


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not address.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"must be host:port, got {address[:200]!r}", field="address")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _watch_over(found: socket.socket) -> None:
    """Lets TCP find out that the other machine is gone."""
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _DEAD_SECONDS * 1000),
    ):
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
