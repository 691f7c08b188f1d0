"""The coarse check at Envoy's ext_authz filter: is there a user, and are they a member of the namespace in the path?

What exactly they may do there is the service's own check, which knows verb and resource.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

_NAMESPACE = re.compile(r"/namespaces/([^/:]+)")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class CoarseQuestion:
    """What an HTTP request asks for, as far as its method and path tell."""

    verb: str
    namespace: str


def coarse_question(method: str, target: str) -> CoarseQuestion:
    """Reads verb and namespace from a request line.

    Args:
        method: HTTP method.
        target: Path with query, as Envoy passes it on.

    Returns:
        The namespace is empty where neither path nor query names one; then membership is for the service to check.
    """
    path, _, query = target.partition("?")
    found = _NAMESPACE.search(path)
    in_query = next(iter(parse_qs(query).get("namespace", [])), "")
    namespace = unquote(found.group(1)) if found else in_query
    return CoarseQuestion("get" if method.upper() in _READING else "update", namespace)
