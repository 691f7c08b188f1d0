"""Models by http and https: one file, which may be an archive."""

import re
from pathlib import Path
from typing import Protocol

from mlmesh_kit.fetch import Fetched, Fetcher, Purpose

from mlmesh_serving.storage.location import Location

_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME = 120


class Hasher(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes, /) -> None:
        """Takes the next bytes."""


class WebDownloader:
    """Downloads files.

    Args:
        hosts: Those that may be asked.
        max_bytes: Largest file.
        seconds: How long one may take.
        field: Where the manifest says the URI.
    """

    def __init__(self, hosts: str, max_bytes: int, seconds: float, field: str) -> None:
        purpose = Purpose(field, "models", "MLMESH_SERVING_MODEL_HOSTS")
        self._fetcher = Fetcher(hosts, max_bytes, purpose, seconds)

    def check(self, location: Location) -> None:
        """Checks that the host may be asked.

        Raises:
            FailedPrecondition, InvalidArgument: See `Fetcher.fetch`.
        """
        self._fetcher.check(location.uri)

    def download(self, location: Location, path: Path, hasher: Hasher, etag: str) -> Fetched:
        """Downloads a file.

        Args:
            location: A URL.
            path: Where it goes.
            hasher: Is given all bytes.
            etag: Of what is there already; empty: nothing is.

        Raises:
            FailedPrecondition, InvalidArgument, Unavailable: See `Fetcher.fetch`.
        """
        with path.open("wb") as sink:

            def take(chunk: bytes) -> None:
                hasher.update(chunk)
                sink.write(chunk)

            return self._fetcher.fetch(location.uri, take, etag)


def file_name(location: Location) -> str:
    """Gives a plain name for what is at a URL: its ending says what format it has."""
    is_host_alone = "/" not in location.place.rstrip("/")
    name = "" if is_host_alone else _UNUSUAL.sub("_", location.name).lstrip("._-")[-_MAX_NAME:]
    return name or "model"
