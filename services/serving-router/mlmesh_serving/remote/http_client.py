"""HTTP/1.1 to servers that users name: connections kept, addresses checked, answers bounded, no redirect followed."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlmesh_kit.errors import DeadlineExceeded, ResourceExhausted, ServiceError, Unavailable

from mlmesh_serving.remote.address import RemoteAddress
from mlmesh_serving.remote.hosts import AllowedHosts

if TYPE_CHECKING:
    import aiohttp

_CONNECT_SECONDS = 5.0
_KEEP_SECONDS = 4.0  # less than the 5 s after which uvicorn hangs up: what is sent in that moment is lost
_RESOLVED_SECONDS = 10


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, address: RemoteAddress, path: str, body: bytes, headers: Mapping[str, str], seconds: float, stage: str
    ) -> HttpAnswer:
        """Posts a body and reads the answer.

        Args:
            address: Of the server.
            path: Below the address's own; begins with a slash.
            body: The bytes.
            headers: Content-Type among them.
            seconds: For all of it.
            stage: Who is asked, for messages.

        Raises:
            Unavailable: It cannot be reached, or hung up.
            DeadlineExceeded: It did not answer in time.
            ResourceExhausted: The answer is too large.
            FailedPrecondition: Its host has no address that may be called.
        """
        return await self._whole("POST", address, path, body, headers, seconds, stage)

    async def get(
        self, address: RemoteAddress, path: str, headers: Mapping[str, str], seconds: float, stage: str
    ) -> HttpAnswer:
        """Reads what is at a path; see `post`."""
        return await self._whole("GET", address, path, None, headers, seconds, stage)

    async def _whole(
        self,
        method: str,
        address: RemoteAddress,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
        stage: str,
    ) -> HttpAnswer:
        async with self.stream(method, address, path, body, headers, seconds, stage) as (status, found, chunks):
            declared = found.get("Content-Length", "")
            if declared.isdigit() and int(declared) > self._max_bytes:
                raise self._too_large(stage)
            parts: list[bytes] = []
            size = 0
            async for chunk in chunks:
                size += len(chunk)
                if size > self._max_bytes:
                    raise self._too_large(stage)
                parts.append(chunk)
        return HttpAnswer(status, found, parts[0] if len(parts) == 1 else b"".join(parts))

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        address: RemoteAddress,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
        stage: str,
        *,
        each: bool = False,
    ) -> AsyncIterator[tuple[int, Mapping[str, str], AsyncIterator[bytes]]]:
        """Asks, and gives status, headers and the body as it comes; leaving early hangs up.

        Args:
            method: Of HTTP.
            address: See `post`, as the others.
            path: Below it.
            body: None: none.
            headers: Of the request.
            seconds: For all of it, or, with `each`, for each piece of the answer.
            stage: For messages.
            each: See `seconds`.

        Raises:
            ServiceError: See `post`; also while the body is read.
        """
        import aiohttp
        import yarl

        scheme = "https" if address.is_secure else "http"
        url = yarl.URL(f"{scheme}://{address.authority}{address.path}{path}", encoded=True)
        whole, piece = (None, seconds) if each else (seconds, None)
        limits = aiohttp.ClientTimeout(total=whole, sock_connect=_CONNECT_SECONDS, sock_read=piece)
        with _told(stage, address):
            async with self._opened().request(
                method, url, data=body, headers=headers, timeout=limits, allow_redirects=False
            ) as response:
                yield response.status, response.headers, _pieces(response, stage, address)

    def _too_large(self, stage: str) -> ResourceExhausted:
        return ResourceExhausted(f"{stage} answered more than the {self._max_bytes} bytes allowed")

    def _opened(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            connector = aiohttp.TCPConnector(
                resolver=_resolver(self._hosts),
                ttl_dns_cache=_RESOLVED_SECONDS,
                limit=0,
                limit_per_host=self._max_connections,
                keepalive_timeout=_KEEP_SECONDS,
                ssl=self._tls if self._tls is not None else True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            )
        return self._session

    async def close(self) -> None:
        """Ends all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


@contextlib.contextmanager
def _told(stage: str, address: RemoteAddress) -> Iterator[None]:
    """Turns what the library raises into what our client is told."""
    import aiohttp

    try:
        yield
    except TimeoutError as error:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            raise Unavailable(f"{stage} at {address.authority} cannot be reached", retry_after_seconds=1) from error
        raise DeadlineExceeded(f"{stage} did not answer in time") from error
    except aiohttp.ClientConnectorError as error:
        refusal = _refusal(error)
        if refusal is not None:
            raise refusal from None
        raise Unavailable(f"{stage} at {address.authority} cannot be reached", retry_after_seconds=1) from error
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        raise Unavailable(f"{stage} hung up before its answer was whole", retry_after_seconds=1) from error
    except aiohttp.ClientError as error:
        raise Unavailable(f"{stage} does not answer in HTTP", retry_after_seconds=1) from error


async def _pieces(response: "aiohttp.ClientResponse", stage: str, address: RemoteAddress) -> AsyncIterator[bytes]:
    with _told(stage, address):
        async for piece in response.content.iter_any():
            yield piece


def _refusal(error: BaseException) -> ServiceError | None:
    """Finds what the resolver said among the causes of an error."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, ServiceError):
        cause = cause.__cause__
    return cause


def _resolver(hosts: AllowedHosts) -> Any:
    """Makes aiohttp's resolver of the addresses that may be called."""
    from aiohttp.abc import AbstractResolver

    class Checked(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[Any]:
            try:
                addresses = await hosts.resolve(host, port)
            except ServiceError as error:
                raise OSError(error.message) from error
            return [
                {
                    "hostname": host,
                    "host": address,
                    "port": port,
                    "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                    "proto": 0,
                    "flags": socket.AI_NUMERICHOST,
                }
                for address in addresses
            ]

        async def close(self) -> None:
            """Nothing is open."""

    return Checked()
