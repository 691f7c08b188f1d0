"""Where a remote server is: `grpc://host:port`, `http://host:port/prefix`, and with TLS `grpcs://` and `https://`."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from mlmesh_kit.errors import InvalidArgument

SCHEMES = ("grpc", "grpcs", "http", "https")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL = 2048
_URL = re.compile(r"[!-~]+", re.ASCII)  # neither spaces nor control characters, which parsers read differently
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9._~:@!$&'()*+,;=%-]*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """An address, apart.

    Attributes:
        scheme: One of SCHEMES.
        host: Name in lower case, or IP address without brackets.
        port: Of TCP.
        path: Below which the server's paths lie, without a slash at its end; empty for gRPC.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def is_grpc(self) -> bool:
        """Whether gRPC is spoken there."""
        return self.scheme.startswith("grpc")

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme.endswith("s")

    @property
    def authority(self) -> str:
        """Host and port, as headers have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_address(url: object, field: str, schemes: tuple[str, ...] = SCHEMES) -> RemoteAddress:
    """Reads an address.

    Args:
        url: As the user gave it.
        field: Where.
        schemes: Those that may be used here.

    Raises:
        InvalidArgument: It is no such URL. Neither this message nor any later one holds credentials: a URL that has
            some is refused, and not repeated.
    """
    if not isinstance(url, str) or not _URL.fullmatch(url) or len(url) > _MAX_URL:
        raise InvalidArgument("must be a URL of printable ASCII characters", field=field)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidArgument("must be a URL, host:port in it", field=field) from error
    if parts.scheme not in schemes:
        raise InvalidArgument(f"must begin with {', '.join(f'{scheme}://' for scheme in schemes)}", field=field)
    if "@" in parts.netloc:
        raise InvalidArgument("must not hold credentials", field=field)
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise InvalidArgument("must have no query and no fragment", field=field)
    host = (parts.hostname or "").rstrip(".")
    if not _is_host(host):
        raise InvalidArgument("must name a host or an IP address", field=field)
    port = port if port is not None else _DEFAULT_PORTS.get(parts.scheme)
    if not port:
        raise InvalidArgument("must name a port", field=field)
    path = parts.path.rstrip("/")
    if parts.scheme.startswith("grpc") and path:
        raise InvalidArgument("must have no path: gRPC has none", field=field)
    if not _PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
        raise InvalidArgument("must have a plain path, without . and ..", field=field)
    return RemoteAddress(parts.scheme, host, port, path)


def _is_host(host: str) -> bool:
    try:
        return not getattr(ip_address(host), "scope_id", None)
    except ValueError:
        return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))
