"""Reports in lines of JSON, an object each."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mlmesh_katib.collectors.base import CollectionError
from mlmesh_katib.collectors.text import is_value
from mlmesh_katib.collectors.times import from_seconds, from_text

MAX_JSON_LINE = 64 << 10


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


# Numbers stay as they were written. NaN and infinities, which JSON has not but Python writes, are numbers too.
_DECODER = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_Number)


class JsonLines:
    """Reads reports from objects like `{"timestamp": 1638422847.28, "loss": "0.22", "accuracy": 0.9}`.

    Katib takes values that are strings; here numbers count as well. `timestamp` is RFC 3339 or seconds since 1970.

    Args:
        metrics: The names that count.
    """

    longest = MAX_JSON_LINE + 1

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = metrics

    def parse(self, line: bytes, stop: float) -> Iterator[tuple[str | None, str, str]]:
        """Reads the reports of a line.

        Args:
            line: Without its end.
            stop: When to give up; not needed here.

        Returns:
            (its time or None, name, value), in the order of the metrics.

        Raises:
            CollectionError: It is no object.
        """
        if len(line) > MAX_JSON_LINE:
            raise CollectionError(f"a line is longer than {MAX_JSON_LINE} bytes")
        try:
            found = _DECODER.decode(line.decode())
        except (ValueError, RecursionError) as error:
            raise CollectionError("a line is not JSON") from error
        if not isinstance(found, dict):
            raise CollectionError("a line is not a JSON object")
        at = _time(found.get("timestamp"))
        for name in self._metrics:
            value = found.get(name)
            if isinstance(value, str) and is_value(text := str(value).strip()):
                yield at, name, text


def _time(value: Any) -> str | None:
    if isinstance(value, _Number):
        return from_seconds(float(value))
    return from_text(value) if isinstance(value, str) else None
