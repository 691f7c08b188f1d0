"""Pipeline packages from URLs: only from hosts that the settings name, and never more than they may be.

A URL from a client is a request that this machine makes for it, so by default none is made (server-side request
forgery). The address of a host is looked up once, checked, and is the one that is connected to: a name that points
elsewhere a moment later changes nothing.
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unavailable

FIELD = "pipeline_version.package_url.pipeline_url"
_MAX_URL = 2000
_MAX_REDIRECTS = 5
_CHUNK = 64 << 10
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True, slots=True)
class FetchedPackage:
    """What was at a URL.

    Attributes:
        url: Without its query, which may hold a secret.
        name: A file name whose ending says what it is.
        data: The bytes.
    """

    url: str
    name: str
    data: bytes


class PackageFetcher:
    """Fetches packages.

    Args:
        hosts: Those that may be asked (`example.com`, `files.example.com:8443`), by comma; `*`: every host whose
            address is public; empty: none.
        max_bytes: Largest package.
        seconds: How long one may take, redirects included.
        context: Whom to trust; None: the system's authorities.
    """

    def __init__(
        self, hosts: str, max_bytes: int, seconds: float = 30.0, context: ssl.SSLContext | None = None
    ) -> None:
        self._hosts = frozenset(host.strip().lower() for host in hosts.split(",") if host.strip())
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._context = context

    def fetch(self, url: str) -> FetchedPackage:
        """Fetches a package.

        Raises:
            FailedPrecondition: The host may not be asked.
            InvalidArgument: It is no URL of http or https, there is nothing, or it is too large.
            Unavailable: The host does not answer (in time).
        """
        deadline = time.monotonic() + self._seconds
        for _ in range(_MAX_REDIRECTS + 1):
            parts = self._checked(url)
            found = self._get(parts, deadline)
            if isinstance(found, bytes):
                without_query = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
                return FetchedPackage(without_query, _name(found), found)
            target = urljoin(url, found)
            if parts.scheme == "https" and not target.startswith("https:"):
                raise InvalidArgument(f"{parts.hostname} redirects from https to something else", field=FIELD)
            url = target
        raise InvalidArgument(f"redirects more than {_MAX_REDIRECTS} times", field=FIELD)

    def _checked(self, url: str) -> SplitResult:
        if len(url) > _MAX_URL or any(character <= " " or character > "~" for character in url):
            raise InvalidArgument(f"must be a URL of at most {_MAX_URL} ASCII characters", field=FIELD)
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError as error:
            raise InvalidArgument("is no URL", field=FIELD) from error
        host = (parts.hostname or "").lower()
        if port is None or not host:
            raise InvalidArgument("must begin with http://HOST or https://HOST", field=FIELD)
        if "@" in parts.netloc:
            raise InvalidArgument("must not hold a user or password", field=FIELD)
        usual = port == _PORTS[parts.scheme]
        if f"{host}:{port}" in self._hosts or (usual and (host in self._hosts or "*" in self._hosts)):
            return parts
        named = host if usual else f"{host}:{port}"
        raise FailedPrecondition(
            f"package_url: packages are not fetched from {named} (MLMESH_PIPELINE_PACKAGE_HOSTS does not name it); "
            "upload the package to /apis/v2beta1/pipelines/upload, or send pipeline_spec"
        )

    def _addresses(self, host: str, port: int) -> list[str]:
        """Looks a host up; gives the addresses that may be connected to."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"package_url: {host} cannot be looked up") from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        if host in self._hosts or f"{host}:{port}" in self._hosts:
            return addresses
        public = [address for address in addresses if _is_public(address)]
        if not public:
            raise FailedPrecondition(
                f"package_url: {host} is no public host; MLMESH_PIPELINE_PACKAGE_HOSTS has to name it"
            )
        return public

    def _get(self, parts: SplitResult, deadline: float) -> bytes | str:
        """Gives the content, or where it is instead."""
        host = (parts.hostname or "").lower()
        port = parts.port or _PORTS[parts.scheme]
        context = (self._context or ssl.create_default_context()) if parts.scheme == "https" else None
        connection = _Pinned(host, port, self._addresses(host, port), deadline, context)
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        headers = {"Accept-Encoding": "identity", "User-Agent": "mlmesh-pipeline"}
        # A timeout of the socket would begin anew with each byte that a slow host sends.
        alarm = threading.Timer(max(0.0, deadline - time.monotonic()), connection.abort)
        alarm.daemon = True
        alarm.start()
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status in _REDIRECTS and answer.headers.get("Location"):
                return str(answer.headers["Location"])
            if answer.status != 200:
                raise InvalidArgument(f"{host} answered {answer.status}", field=FIELD)
            data = self._read(answer)
            if time.monotonic() >= deadline:
                raise TimeoutError
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
                raise Unavailable(f"package_url: {host} did not answer in time") from error
            raise Unavailable(f"package_url: {host} cannot be reached: {type(error).__name__}") from error
        finally:
            alarm.cancel()
            connection.close()
        return data

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        data = bytearray()
        while chunk := answer.read(_CHUNK):
            data += chunk
            if len(data) > self._max_bytes:
                raise InvalidArgument(f"is larger than {self._max_bytes} bytes", field=FIELD)
        if answer.length:
            raise http.client.IncompleteRead(bytes(data[:0]), answer.length)
        return bytes(data)


class _Pinned(http.client.HTTPConnection):
    """A connection to addresses that were looked up already."""

    def __init__(
        self, host: str, port: int, addresses: list[str], deadline: float, context: ssl.SSLContext | None
    ) -> None:
        super().__init__(host, port)
        self._addresses = addresses
        self._deadline = deadline
        self._context = context
        self._open: socket.socket | None = None

    def connect(self) -> None:
        opened = self._connected()
        if self._context is not None:
            secured = self._context.wrap_socket(opened, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock = self._open = secured
            secured.do_handshake()
        else:
            self.sock = self._open = opened

    def _connected(self) -> socket.socket:
        for address in self._addresses[:-1]:
            with contextlib.suppress(OSError):
                return socket.create_connection((address, self.port), self._left())
        return socket.create_connection((self._addresses[-1], self.port), self._left())

    def _left(self) -> float:
        return max(0.1, self._deadline - time.monotonic())

    def abort(self) -> None:
        """Ends what is going on, from another thread."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open.shutdown(socket.SHUT_RDWR)


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    return found.is_global and not found.is_multicast


def _name(data: bytes) -> str:
    """Says by its first bytes what a package is: URLs often end in nothing that says it."""
    if data.startswith(b"PK"):
        return "package.zip"
    return "package.tar.gz" if data.startswith(b"\x1f\x8b") else "package.yaml"
