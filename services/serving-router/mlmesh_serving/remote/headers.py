"""Which of a client's headers go on to servers elsewhere.

As KServe's router of graphs does by its PROPAGATE_HEADERS: patterns name them, and nothing else goes on, but for what
follows a request through the mesh.
"""

import re
from collections.abc import Iterable, Mapping

ALWAYS = frozenset({"traceparent", "tracestate", "x-request-id"})
NEVER = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
        "inference-header-content-length", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
    }
)  # fmt: skip
"""Of one connection or one body; each hop has its own."""
_MAX_PATTERN = 256


class HeaderRules:
    """Chooses headers.

    Args:
        patterns: Regular expressions; a header goes on if one is found in its name, whatever the case.

    Raises:
        ValueError: A pattern is no regular expression.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = []
        for pattern in patterns:
            if len(pattern) > _MAX_PATTERN:
                raise ValueError(f"a pattern has at most {_MAX_PATTERN} characters")
            try:
                self._patterns.append(re.compile(pattern, re.IGNORECASE))
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        self._known: dict[str, bool] = {}

    def select(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Gives those that go on; names in lower case."""
        return {name: value for name, value in headers.items() if self._goes_on(name)}

    def _goes_on(self, name: str) -> bool:
        if name in ALWAYS:
            return True
        if not self._patterns or name in NEVER or name.startswith((":", "grpc-")):
            return False
        known = self._known.get(name)
        if known is None:
            known = any(pattern.search(name) for pattern in self._patterns)
            if len(self._known) < 1000:
                self._known[name] = known
        return known


def parse_patterns(setting: str) -> HeaderRules:
    """Reads the setting: regular expressions, separated by commas.

    Raises:
        ValueError: One is no regular expression.
    """
    return HeaderRules(filter(None, (part.strip() for part in setting.split(","))))
