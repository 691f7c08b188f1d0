"""Folders and buckets that events may be written below."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlmesh_kit.errors import FailedPrecondition


class AllowedPlaces:
    """A list of URIs of folders: `file:///...`, `s3://bucket/...`, `minio://bucket/...`.

    Args:
        roots: The folders.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = [root.rstrip("/") for root in roots if root.strip()]

    def root_of(self, uri: str) -> str | None:
        """Gives the root that a URI lies below; None: none."""
        return next((root for root in self._roots if _is_below(uri, root)), None)

    def check(self, uri: str, field: str, setting: str) -> None:
        """Checks a URI at the door.

        Raises:
            FailedPrecondition: It lies elsewhere.
        """
        if self.root_of(uri) is None:
            raise FailedPrecondition(f"{field}: only what lies below what {setting} names is written to")


def _is_below(uri: str, root: str) -> bool:
    try:
        wanted, given = urlsplit(root), urlsplit(uri)
    except ValueError:  # brackets that it takes for an IPv6 address
        return False
    if (wanted.scheme, wanted.netloc) != (given.scheme, given.netloc) or given.query or given.fragment:
        return False
    place, folder = unquote(given.path), unquote(wanted.path)
    if not place.isprintable():
        return False
    if given.scheme == "file":
        try:
            return Path(place).resolve().is_relative_to(Path(folder).resolve())  # links followed
        except (OSError, RuntimeError):  # a name too long, links in a circle
            return False
    parts, first = place.strip("/").split("/"), [part for part in folder.strip("/").split("/") if part]
    return ".." not in parts and parts[: len(first)] == first
