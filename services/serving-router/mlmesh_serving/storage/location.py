"""URIs of models, taken apart, and the roots below which they are allowed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlmesh_kit.errors import InvalidArgument

MAX_URI_LENGTH = 2048
OBJECT_STORES = frozenset({"s3", "minio"})
WEB = frozenset({"http", "https"})
_KNOWN = (
    "file:///..., s3://bucket/..., minio://bucket/..., http(s)://host/..., mlmd://artifacts/ID or mlmd://models/NAME"
)


@dataclass(frozen=True, slots=True)
class Location:
    """A URI, taken apart.

    Attributes:
        uri: As it was written; of a plain path: as a file URI.
        scheme: file, s3, minio, http, https or mlmd.
        place: The path; of the others: bucket, host or collection, and path.
        field: Where the manifest says it, for messages.
    """

    uri: str
    scheme: str
    place: str
    field: str

    @property
    def name(self) -> str:
        """The last part of the path, unquoted."""
        return unquote(self.place.rstrip("/").rsplit("/", 1)[-1])


def parse_location(uri: str, field: str) -> Location:
    """Takes a storageUri apart; a plain absolute path is one of a file.

    Raises:
        InvalidArgument: It is not a URI of a known scheme.
    """
    problem = InvalidArgument(f"must be a URI {_KNOWN}", field=field)
    if len(uri) > MAX_URI_LENGTH or not uri.isprintable():
        raise problem
    if uri.startswith("/") and not uri.startswith("//"):
        return Location(Path(uri).as_uri(), "file", uri, field)
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:  # brackets that urlsplit takes for an IPv6 address
        raise problem from error
    scheme = parts.scheme
    is_file = scheme == "file"
    known = is_file or scheme in OBJECT_STORES or scheme in WEB or scheme == "mlmd"
    if not known or is_file == bool(parts.netloc) or parts.fragment or (parts.query and scheme not in WEB):
        raise problem
    host = parts.netloc.lower() if scheme in WEB else parts.netloc
    place = unquote(parts.path) if is_file else f"{host}{parts.path}"
    if not place.isprintable() or (is_file and not place.startswith("/")):
        raise problem
    return Location(uri, scheme, place, field)


class Roots:
    """URIs below which something is allowed.

    Args:
        uris: The roots.
        setting: Whose value they are, for messages.
    """

    def __init__(self, uris: Sequence[str], setting: str) -> None:
        self.setting = setting
        self._roots = [parse_location(uri, setting) for uri in uris]

    def hold(self, location: Location) -> bool:
        """Tells whether a location lies below one of them; symbolic links are followed."""
        return any(root.scheme == location.scheme and _is_below(location, root) for root in self._roots)


def _is_below(location: Location, root: Location) -> bool:
    if location.scheme == "file":
        try:
            return Path(location.place).resolve().is_relative_to(Path(root.place).resolve())
        except (OSError, RuntimeError):  # a name too long, links in a circle
            return False
    parts, wanted = location.place.split("/"), root.place.rstrip("/").split("/")
    return ".." not in unquote(location.place).split("/") and parts[: len(wanted)] == wanted
