"""What a document may be at most: bytes, depth, values; and that each of them is one that JSON knows."""

import math
from typing import Any

from mlmesh_kit.errors import InvalidArgument

MAX_DEPTH = 95
"""In nested messages, as the API gives a specification (a map is three, a list two): protobuf reads at most 100."""
MAX_NODES = 500_000
MAX_BYTES = 8 << 20
_MAX_BITS = 1023  # of whole numbers: what a double holds

_Place = tuple[Any, str | int] | None  # the parent's, and the key in it


def check_bounds(content: Any, field: str) -> None:
    """Checks content that a client wrote; walks without recursion, so that depth costs nothing.

    Args:
        content: As YAML or JSON were read.
        field: Where it is in the request.

    Raises:
        InvalidArgument: It is too large or too deep, or holds what JSON does not know; names the place.
    """
    stack: list[tuple[Any, int, _Place]] = [(content, 1, None)]
    nodes = size = 0
    while stack:
        item, depth, place = stack.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise InvalidArgument(
                "nested deeper than messages can be: some 30 maps or 45 lists", field=_path(place, field)
            )
        if nodes > MAX_NODES:
            raise InvalidArgument(f"more than {MAX_NODES} values", field=field)
        if isinstance(item, dict):
            for key, value in item.items():
                if not isinstance(key, str) or not _is_text(key):
                    raise InvalidArgument("keys must be text", field=_path(place, field))
                size += len(key)
                stack.append((value, depth + 3, (place, key)))
        elif isinstance(item, list):
            stack += [(value, depth + 2, (place, number)) for number, value in enumerate(item)]
        elif fault := _fault_of(item):
            raise InvalidArgument(fault, field=_path(place, field))
        elif isinstance(item, str):
            size += len(item)
        if size > MAX_BYTES:
            raise InvalidArgument(f"larger than {MAX_BYTES} bytes", field=field)


def _fault_of(item: Any) -> str:
    match item:
        case None | bool():
            return ""
        case str():
            return "" if _is_text(item) else "is not Unicode text"
        case float():
            return "" if math.isfinite(item) else "must be a finite number"
        case int():
            return "" if item.bit_length() <= _MAX_BITS else "is too large a number"
    return f"is a {type(item).__name__}, which JSON does not know"


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(key: str | int) -> str | int:
    return key[:100] if isinstance(key, str) else key


def _path(place: _Place, field: str) -> str:
    """Writes a place as the path of a field; of one that is very deep, the end."""
    keys: list[str] = []
    while place is not None and len(keys) < 20:
        place, key = place
        keys.append(f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{_short(key)!r}]")
    path = "".join(reversed(keys))
    if place is not None:
        return f"{field}...{path}"
    return path.removeprefix(".") if path.startswith((f".{field}", ".platform_spec")) else f"{field}{path}"
