"""HTTP/1.1 to servers that users name: connections kept, addresses checked, answers bounded, no redirect followed."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

from mlmesh_kit.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable

from mlmesh_serving.remote.address import RemoteAddress
from mlmesh_serving.remote.dialling import dial
from mlmesh_serving.remote.hosts import AllowedHosts
from mlmesh_serving.remote.http_connection import (
    HttpConnection,
    HungUpError,
    LateError,
    NotHttpError,
    TooLargeError,
)

_CONNECT_SECONDS = 5.0
_KEEP_SECONDS = 4.0  # less than the 5 s after which uvicorn hangs up: what is sent in that moment is lost


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer, whole; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Origin:
    """The connections to one server."""

    places: asyncio.Semaphore
    in_use: int = 0
    idle: list[HttpConnection] = field(default_factory=list)


class HttpClient:
    """Asks HTTP servers; one for the whole service.

    Args:
        hosts: That may be called.
        max_answer_bytes: Of an answer's body; a larger one is refused.
        max_connections: To one server; requests beyond it wait.
        tls: For https; None: as the system trusts.
    """

    def __init__(
        self,
        hosts: AllowedHosts,
        max_answer_bytes: int,
        max_connections: int = 256,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = hosts
        self._max_bytes = max_answer_bytes
        self._max_connections = max_connections
        self._tls = tls
        self._origins: dict[tuple[bool, str, int], _Origin] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def post(
        self, address: RemoteAddress, path: str, body: bytes, headers: Mapping[str, str], seconds: float, stage: str
    ) -> HttpAnswer:
        """Posts a body and reads the answer.

        Args:
            address: Of the server.
            path: Below the address's own; begins with a slash; percent-encoded.
            body: The bytes.
            headers: Content-Type among them.
            seconds: For all of it.
            stage: Who is asked, for messages.

        Raises:
            Unavailable: It cannot be reached, hung up, or does not speak HTTP.
            DeadlineExceeded: It did not answer in time.
            ResourceExhausted: The answer is too large.
        """
        return await self._whole("POST", address, path, body, headers, seconds, stage)

    async def get(
        self, address: RemoteAddress, path: str, headers: Mapping[str, str], seconds: float, stage: str
    ) -> HttpAnswer:
        """Reads what is at a path; see `post`."""
        return await self._whole("GET", address, path, b"", headers, seconds, stage)

    async def _whole(
        self,
        method: str,
        address: RemoteAddress,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        seconds: float,
        stage: str,
    ) -> HttpAnswer:
        with self._told(stage, address):
            request = _request(method, address, path, body, headers)
            async with self._connection(address, seconds) as connection:
                connection.ask(request, body, seconds=seconds, limit=self._max_bytes, each=False)
                status, found = await connection.head()
                return HttpAnswer(status, found, await connection.whole())

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        address: RemoteAddress,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        seconds: float,
        stage: str,
    ) -> AsyncIterator[tuple[int, Mapping[str, str], AsyncIterator[bytes]]]:
        """Asks, and gives status, headers and the body as it comes; leaving early hangs up.

        Args:
            method: Of HTTP.
            address: See `post`, as the others.
            path: Below it.
            body: May be empty.
            headers: Of the request.
            seconds: For each piece of the answer.
            stage: For messages.

        Raises:
            ServiceError: See `post`; also while the body is read.
        """
        with self._told(stage, address):
            request = _request(method, address, path, body, headers)
            async with self._connection(address, seconds) as connection:
                connection.ask(request, body, seconds=seconds, limit=0, each=True)
                status, found = await connection.head()
                yield status, found, self._pieces(connection, stage, address)

    async def _pieces(self, connection: HttpConnection, stage: str, address: RemoteAddress) -> AsyncIterator[bytes]:
        with self._told(stage, address):
            async for piece in connection.pieces():
                yield piece

    def _origin(self, address: RemoteAddress) -> _Origin:
        key = (address.is_secure, address.host, address.port)
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = _Origin(asyncio.Semaphore(self._max_connections))
        return origin

    @contextlib.asynccontextmanager
    async def _connection(self, address: RemoteAddress, seconds: float) -> AsyncIterator[HttpConnection]:
        """Gives a connection for one exchange."""
        origin = self._origin(address)
        origin.in_use += 1
        try:
            async with origin.places:
                connection = _idle(origin) or await self._open(address, seconds)
                try:
                    yield connection
                finally:
                    self._put_back(origin, connection)
        finally:
            origin.in_use -= 1

    async def _open(self, address: RemoteAddress, seconds: float) -> HttpConnection:
        loop = asyncio.get_running_loop()
        if address.is_secure and self._tls is None:
            self._tls = ssl.create_default_context()
        async with asyncio.timeout(min(seconds, _CONNECT_SECONDS)):
            tls = self._tls if address.is_secure else None
            return (await dial(lambda: HttpConnection(loop), address, self._hosts, tls))[1]

    def _put_back(self, origin: _Origin, connection: HttpConnection) -> None:
        connection.end()
        if connection.reusable:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            origin.idle.append(connection)
            if self._sweeping is None:
                self._sweeping = loop.call_later(_KEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Closes the connections that nobody has used for long."""
        loop = asyncio.get_running_loop()
        self._sweeping = None
        for key, origin in list(self._origins.items()):
            fresh = [each for each in origin.idle if loop.time() - each.idle_since < _KEEP_SECONDS and each.reusable]
            for each in origin.idle:
                if each not in fresh:
                    each.close()
            origin.idle = fresh
            if not fresh and not origin.in_use:
                del self._origins[key]
        if any(origin.idle for origin in self._origins.values()):
            self._sweeping = loop.call_later(_KEEP_SECONDS, self._sweep)

    @contextlib.contextmanager
    def _told(self, stage: str, address: RemoteAddress) -> Iterator[None]:
        """Turns what goes wrong into what our client is told."""
        try:
            yield
        except LateError as error:
            raise DeadlineExceeded(f"{stage} did not answer in time") from error
        except TooLargeError as error:
            raise ResourceExhausted(f"{stage} answered more than the {self._max_bytes} bytes allowed") from error
        except HungUpError as error:
            raise Unavailable(f"{stage} hung up before its answer was whole", retry_after_seconds=1) from error
        except NotHttpError as error:
            raise Unavailable(f"{stage} does not answer in HTTP", retry_after_seconds=1) from error
        except OSError as error:  # a timeout of the connection is one, too
            raise Unavailable(f"{stage} at {address.authority} cannot be reached", retry_after_seconds=1) from error

    async def close(self) -> None:
        """Ends all connections that are not in use."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for origin in self._origins.values():
            for connection in origin.idle:
                connection.close()
            origin.idle.clear()


def _idle(origin: _Origin) -> HttpConnection | None:
    """Takes the connection that was put aside last; those that are too old are closed."""
    now = asyncio.get_running_loop().time()
    while origin.idle:
        found = origin.idle.pop()
        if found.reusable and now - found.idle_since < _KEEP_SECONDS:
            return found
        found.close()
    return None


def _request(method: str, address: RemoteAddress, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Writes request line and headers."""
    lines = [f"{method} {address.path}{path} HTTP/1.1", f"host: {address.authority}"]
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    for name, value in headers.items():
        if "\n" in value or "\r" in value or "\0" in value:
            raise InvalidArgument("must be one line", field=name)
        lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "", "")).encode("latin-1", "replace")
