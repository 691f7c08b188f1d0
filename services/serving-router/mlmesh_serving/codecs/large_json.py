"""Large v2 requests: lists of numbers go from the JSON text into arrays, and no Python number is made of each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE = 64 << 10  # bytes; smaller ones are read faster the usual way
_TYPES = {"f": ("d", np.dtype(np.float64)), "i": ("i", np.dtype(np.int64)), "u": ("u", np.dtype(np.uint64))}


class Numbers:
    """A flat list of JSON, not read yet.

    Args:
        array: simdjson's.
    """

    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, kind: str) -> NDArray[Any] | None:
        """Gives the numbers as 64-bit ones of a kind of numpy's (f, i, u); None: they are not all such numbers."""
        if kind not in _TYPES:
            return None
        code, dtype = _TYPES[kind]
        try:
            return np.frombuffer(self._array.as_buffer(of_type=code), dtype=dtype)
        except (TypeError, ValueError):
            return None

    def as_list(self) -> list[Any]:
        """Gives what it holds, whatever that is."""
        found: list[Any] = self._array.as_list()
        return found


def parse_large(body: bytes | memoryview) -> dict[str, Any] | None:
    """Reads a v2 request whose tensors hold flat lists; their `data` are `Numbers`.

    Args:
        body: JSON.

    Returns:
        The request, or None where it is of another form (nested lists, no JSON, ...), to be read the usual way.
    """
    import simdjson  # only where there are such requests

    content = bytes(body)
    try:
        document: Any = simdjson.Parser().parse(content)
        inputs: Any = document["inputs"]
        found = {key: None if key == "inputs" else _plain(document[key]) for key in _keys(document)}
        found["inputs"] = [{key: _lazy(item[key], key) for key in _keys(item)} for item in inputs]
        # Where there are more brackets than lists, lists of numbers have lists in them, or a text has a bracket.
        return found if content.count(b"[") == _lists(found) else None
    except (
        AttributeError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # RuntimeError: integers beyond 64 bits, depth
        return None


def _lists(value: Any) -> int:
    """Counts the lists in a value."""
    if isinstance(value, dict):
        return sum(_lists(item) for item in value.values())
    if isinstance(value, list):
        return 1 + sum(_lists(item) for item in value)
    return int(isinstance(value, Numbers))


def _keys(item: Any) -> list[str]:
    """Gives the keys of an object.

    Raises:
        KeyError: One is there twice; the last one holds, and that is not the one that is found here.
    """
    keys = list(item.keys())
    if len(set(keys)) < len(keys):
        raise KeyError
    return keys


def _lazy(value: Any, key: str) -> Any:
    return Numbers(value) if key == "data" and hasattr(value, "as_buffer") else _plain(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "as_list"):
        return value.as_list()
    return value.as_dict() if hasattr(value, "as_dict") else value
