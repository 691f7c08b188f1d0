"""What is never logged."""

from collections.abc import Collection
from typing import Any

import orjson

ALWAYS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "kubeflow-userid", "x-api-key", "x-auth-token"}
)
"""Headers that hold secrets or say who somebody is."""

REDACTED = "[redacted]"


class Redaction:
    """Takes fields and headers out of what is logged.

    Args:
        headers: Names of headers, beside those of ALWAYS.
        fields: Names of tensors, and of fields at any depth of a JSON payload.
    """

    def __init__(self, headers: Collection[str] = (), fields: Collection[str] = ()) -> None:
        self._headers = ALWAYS | {name.lower() for name in headers}
        self._fields = frozenset(fields)

    def allows_header(self, name: str) -> bool:
        """Tells whether a header may be logged."""
        return name.lower() not in self._headers

    @property
    def is_empty(self) -> bool:
        """Whether payloads are logged as they are."""
        return not self._fields

    def payload(self, body: bytes) -> bytes | None:
        """Gives a JSON payload without the fields; None: it is no JSON, so they cannot be found in it."""
        if self.is_empty:
            return body
        try:
            return orjson.dumps(self._without(orjson.loads(body)))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            return None

    def _without(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._without(item) if isinstance(item, (dict, list)) else item for item in value]
        if not isinstance(value, dict):
            return value
        named = value.get("name")
        if isinstance(named, str) and named in self._fields and "data" in value:  # a tensor
            value = {**value, "data": REDACTED}
        return {key: REDACTED if key in self._fields else self._without(item) for key, item in value.items()}
