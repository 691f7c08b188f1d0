"""Pipeline packages from URLs."""

import ssl
from dataclasses import dataclass

from mlmesh_kit.fetch import Fetcher, Purpose

FIELD = "pipeline_version.package_url.pipeline_url"
_PURPOSE = Purpose(
    FIELD,
    "packages",
    "MLMESH_PIPELINE_PACKAGE_HOSTS",
    "upload the package to /apis/v2beta1/pipelines/upload, or send pipeline_spec",
)


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
        hosts: Those that may be asked, as `Fetcher` takes them.
        max_bytes: Largest package.
        seconds: How long one may take, redirects included.
        context: Whom to trust; None: the system's authorities.
    """

    def __init__(
        self, hosts: str, max_bytes: int, seconds: float = 30.0, context: ssl.SSLContext | None = None
    ) -> None:
        self._fetcher = Fetcher(hosts, max_bytes, _PURPOSE, seconds, context)

    def fetch(self, url: str) -> FetchedPackage:
        """Fetches a package.

        Raises:
            FailedPrecondition: The host may not be asked.
            InvalidArgument: It is no URL of http or https, there is nothing, or it is too large.
            Unavailable: The host does not answer (in time).
        """
        data = bytearray()
        found = self._fetcher.fetch(url, data.extend)
        return FetchedPackage(found.url, _name(data), bytes(data))


def _name(data: bytearray) -> str:
    """Says by its first bytes what a package is: URLs often end in nothing that says it."""
    if data.startswith(b"PK"):
        return "package.zip"
    return "package.tar.gz" if data.startswith(b"\x1f\x8b") else "package.yaml"
