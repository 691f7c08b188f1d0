"""Files from URLs: only from hosts that the settings name, and never more than they may be.

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
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unavailable

Sink = Callable[[bytes], object]
"""Is given the content, piece by piece."""

_MAX_URL = 2000
_MAX_REDIRECTS = 5
_CHUNK = 64 << 10
_PORTS = {"http": 80, "https": 443}
_PUBLIC = ipaddress.IPv6Network("2000::/3")  # all that has been given out
_TUNNELS = [ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")
_REDIRECTS = {301, 302, 303, 307, 308}
_UNCHANGED = 304


@dataclass(frozen=True, slots=True)
class Purpose:
    """What is fetched and who says from where, for messages.

    Attributes:
        field: Of the request that the URL is in.
        what: In the plural: packages, models.
        setting: The variable that names the hosts.
        instead: What the user can do where a host may not be asked; empty: nothing.
    """

    field: str
    what: str
    setting: str
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was at a URL.

    Attributes:
        url: Without its query, which may hold a secret; after redirects.
        etag: What the host calls this content; empty: nothing.
        is_unchanged: It is what the caller has: nothing was given to the sink.
    """

    url: str
    etag: str
    is_unchanged: bool = False


class Fetcher:
    """Fetches files.

    Args:
        hosts: Those that may be asked (`example.com`, `files.example.com:8443`), by comma; `*`: every host whose
            address is public; empty: none.
        max_bytes: Largest file.
        purpose: For messages.
        seconds: How long one may take, redirects included.
        context: Whom to trust; None: the system's authorities.
    """

    def __init__(
        self,
        hosts: str,
        max_bytes: int,
        purpose: Purpose,
        seconds: float = 30.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = frozenset(host.strip().lower() for host in hosts.split(",") if host.strip())
        self._max_bytes = max_bytes
        self._purpose = purpose
        self._field = purpose.field
        self._seconds = seconds
        self._context = context

    def fetch(self, url: str, sink: Sink, etag: str = "") -> Fetched:
        """Fetches a file. Blocks.

        Args:
            url: Of http or https.
            sink: Is given the content; that of an error or a redirect never.
            etag: What the host called the content that the caller has already; empty: it has none.

        Raises:
            FailedPrecondition: The host may not be asked.
            InvalidArgument: It is no URL of http or https, there is nothing, or it is too large.
            Unavailable: The host does not answer (in time).
        """
        deadline = time.monotonic() + self._seconds
        for _ in range(_MAX_REDIRECTS + 1):
            parts = self._checked(url)
            found = self._get(parts, deadline, sink, etag)
            if isinstance(found, Fetched):
                return found
            target = urljoin(url, found)
            if parts.scheme == "https" and not target.startswith("https:"):
                raise InvalidArgument(f"{parts.hostname} redirects from https to something else", field=self._field)
            url = target
        raise InvalidArgument(f"redirects more than {_MAX_REDIRECTS} times", field=self._field)

    def check(self, url: str) -> None:
        """Checks that a URL may be asked, as far as that is known without a look-up of its host.

        Raises:
            FailedPrecondition, InvalidArgument: As `fetch`.
        """
        self._checked(url)

    def _checked(self, url: str) -> SplitResult:
        if len(url) > _MAX_URL or any(character <= " " or character > "~" for character in url):
            raise InvalidArgument(f"must be a URL of at most {_MAX_URL} ASCII characters", field=self._field)
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError as error:
            raise InvalidArgument("is no URL", field=self._field) from error
        host = (parts.hostname or "").lower()
        if port is None or not host or parts.scheme not in _PORTS:
            raise InvalidArgument("must begin with http://HOST or https://HOST", field=self._field)
        if "@" in parts.netloc:
            raise InvalidArgument("must not hold a user or password", field=self._field)
        usual = port == _PORTS[parts.scheme]
        if f"{host}:{port}" in self._hosts or (usual and (host in self._hosts or "*" in self._hosts)):
            return parts
        named = host if usual else f"{host}:{port}"
        refused = f"{self._field}: {self._purpose.what} are not fetched from {named}"
        instead = f"; {self._purpose.instead}" if self._purpose.instead else ""
        raise FailedPrecondition(f"{refused} ({self._purpose.setting} does not name it){instead}")

    def _addresses(self, host: str, port: int) -> list[str]:
        """Looks a host up; gives the addresses that may be connected to."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"{self._field}: {host} cannot be looked up") from error
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        if host in self._hosts or f"{host}:{port}" in self._hosts:
            return addresses
        public = [address for address in addresses if _is_public(address)]
        if not public:
            raise FailedPrecondition(f"{self._field}: {host} is no public host; {self._purpose.setting} has to name it")
        return public

    def _get(self, parts: SplitResult, deadline: float, sink: Sink, etag: str) -> Fetched | str:
        """Gives what was found, or where it is instead."""
        host = (parts.hostname or "").lower()
        port = parts.port or _PORTS[parts.scheme]
        context = (self._context or ssl.create_default_context()) if parts.scheme == "https" else None
        connection = _Pinned(host, port, self._addresses(host, port), deadline, context)
        path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        headers = {"Accept-Encoding": "identity", "User-Agent": "mlmesh"}
        if etag:
            headers["If-None-Match"] = etag
        # A timeout of the socket would begin anew with each byte that a slow host sends.
        alarm = threading.Timer(max(0.0, deadline - time.monotonic()), connection.abort)
        alarm.daemon = True
        alarm.start()
        url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status in _REDIRECTS and answer.headers.get("Location"):
                return str(answer.headers["Location"])
            if etag and answer.status == _UNCHANGED:
                return Fetched(url, etag, is_unchanged=True)
            if answer.status != 200:
                raise InvalidArgument(f"{host} answered {answer.status}", field=self._field)
            self._read(answer, deadline, sink)
            if time.monotonic() >= deadline:
                raise TimeoutError
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
                raise Unavailable(f"{self._field}: {host} did not answer in time") from error
            raise Unavailable(f"{self._field}: {host} cannot be reached: {type(error).__name__}") from error
        finally:
            alarm.cancel()
            connection.close()
        return Fetched(url, answer.headers.get("ETag") or "")

    def _read(self, answer: http.client.HTTPResponse, deadline: float, sink: Sink) -> None:
        count = 0
        while chunk := answer.read(_CHUNK):
            if time.monotonic() >= deadline:
                raise TimeoutError
            count += len(chunk)
            if count > self._max_bytes:
                raise InvalidArgument(f"is larger than {self._max_bytes} bytes", field=self._field)
            sink(chunk)
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)


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
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:  # what translates or tunnels to IPv4 hides where that is
            return found in _PUBLIC and not any(found in network for network in _TUNNELS)
        found = found.ipv4_mapped
    return found.is_global and not found.is_multicast and found not in _PROTOCOLS
