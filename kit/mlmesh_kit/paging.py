"""Page tokens (https://google.aip.dev/158): opaque to the client, checked when they come back."""

import base64
import binascii
import hashlib
import json
from typing import Any

from mlmesh_kit.errors import InvalidArgument

MAX_TOKEN_BYTES = 4096


def _digest(query: Any) -> str:
    return hashlib.sha256(json.dumps(query, sort_keys=True, default=str).encode()).hexdigest()[:16]


def encode_page_token(position: Any, query: Any = None) -> str:
    """Makes a token.

    Args:
        position: Where the next page begins; JSON.
        query: What the list was asked with (filter, order, parent); a token is good for that alone.
    """
    content = json.dumps([position, _digest(query)], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decode_page_token(token: str, query: Any = None, *, field: str = "page_token") -> Any:
    """Gives the position back; None for an empty token (the first page).

    Raises:
        InvalidArgument: It is no token of ours, or one of another query.
    """
    if not token:
        return None
    problem = InvalidArgument("must be a token from an earlier answer to the same list request", field=field)
    if len(token) > MAX_TOKEN_BYTES:
        raise problem
    try:
        position, digest = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise problem from error
    if digest != _digest(query):
        raise problem
    return position
