"""Which hosts the router may be told to connect to: an address in a manifest must not open what its author cannot."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from mlmesh_kit.errors import FailedPrecondition

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AllowedHosts:
    """A list of hosts.

    Args:
        patterns: `host`, `host:port`, or `*.domain` for all below a domain. What is listed is compared as text: a name
            is trusted to resolve to where its owner wants it.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [pattern.strip().lower() for pattern in patterns if pattern.strip()]

    def allows(self, url: str) -> bool:
        """Tells whether a URL leads to one of them."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return False
        port = port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        shown = f"[{host}]" if ":" in host else host
        return bool(host) and any(
            pattern in (host, shown, f"{shown}:{port}")
            or (pattern.startswith("*.") and host.endswith(pattern[1:]) and host != pattern[2:])
            for pattern in self._patterns
        )

    def check(self, url: str, field: str, setting: str) -> None:
        """Checks a URL at the door.

        Args:
            url: Where to.
            field: Where the manifest says so.
            setting: What an operator has to change.

        Raises:
            FailedPrecondition: It leads elsewhere.
        """
        if not self.allows(url):
            raise FailedPrecondition(f"{field}: only the hosts that {setting} names are connected to")
