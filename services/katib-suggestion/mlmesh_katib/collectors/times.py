"""Times of reports, in the one form that sorts as text: RFC 3339, UTC, microseconds."""

import re
import time
from datetime import UTC, datetime

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Clock:
    """The time of reading, for reports that say no time: later with each call, so that their order is kept."""

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> str:
        """Gives a time that no call before has given."""
        self._last = max(time.time_ns() // 1000, self._last + 1)
        seconds, micros = divmod(self._last, 1_000_000)
        return _text(datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros))


def from_text(text: str) -> str | None:
    """Reads a time as RFC 3339 has it; None: it is none. What is finer than microseconds is cut off."""
    if _RFC_3339.fullmatch(text) is None:
        return None
    try:
        return _text(datetime.fromisoformat(text.upper()).astimezone(UTC))
    except (ValueError, OverflowError):  # a 30th of February, a leap second, the year 0
        return None


def from_seconds(seconds: float) -> str | None:
    """Reads a time in seconds since 1970; None: there is no such time."""
    try:
        return _text(datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
