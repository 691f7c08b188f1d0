"""Cron expressions as KFP has them: those of robfig/cron v1, with seconds first.

`second minute hour day-of-month month [day-of-week]`, each `*`, `?`, `N`, `N-M`, with `/STEP`, in lists by comma;
months and days of the week by name; `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`;
`@every 1h30m`. A prefix `TZ=Europe/Berlin ` or `CRON_TZ=...` says where the clock hangs.
See https://pkg.go.dev/github.com/robfig/cron@v1.2.0.
"""

import datetime
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from mlmesh_kit.errors import InvalidArgument

MAX_CHARACTERS = 500
_YEARS = 5
"""So far ahead a time is looked for: what has none (30 February) never fires."""
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}


@dataclass(frozen=True)
class _Field:
    """A field of an expression.

    Args:
        name: For people.
        least: Smallest value.
        most: Largest value.
        names: Values by name.
    """

    name: str
    least: int
    most: int
    names: dict[str, int]


_FIELDS = (
    _Field("second", 0, 59, {}),
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field("day of week", 0, 6, {name: number for number, name in enumerate(_DAYS)}),
)


@dataclass(frozen=True)
class CronExpression:
    """When something fires.

    Args:
        seconds, minutes, hours, days, months, weekdays: Values that match; Sunday is 0. Idle if `every` is set.
        any_day: Whether days or weekdays are a star: then both must match, else one of them.
        zone: Where the clock hangs.
        every: Seconds between two times; 0: the fields say when.
    """

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    zone: datetime.tzinfo
    every: int = 0

    def after(self, moment: int) -> int | None:
        """Gives the first time after a moment; None if there is none within five years.

        Where clocks are put forward, what would be in the hour that is left out does not fire; where they are put back,
        what is in the hour that comes twice fires twice.

        Args:
            moment: Seconds since the epoch.
        """
        if self.every:
            return moment + self.every
        try:
            return self._find(moment)
        except (OverflowError, ValueError):  # beyond the year 9999
            return None

    def _find(self, moment: int) -> int | None:
        at = moment + 1
        end = moment + _YEARS * 366 * 86_400
        while at <= end:
            local = datetime.datetime.fromtimestamp(at, self.zone)
            if local.month not in self.months:
                at = self._start(local, months=1)
            elif not self._day_matches(local):
                at = self._start(local, days=1)
            elif local.hour not in self.hours:
                at += 3600 - local.minute * 60 - local.second
            elif local.minute not in self.minutes:
                at += 60 - local.second
            elif local.second not in self.seconds:
                at += 1
            else:
                return at
        return None

    def _day_matches(self, local: datetime.datetime) -> bool:
        day, weekday = local.day in self.days, (local.weekday() + 1) % 7 in self.weekdays
        return (day and weekday) if self.any_day else (day or weekday)

    def _start(self, local: datetime.datetime, *, months: int = 0, days: int = 0) -> int:
        """Gives when the next month or day begins."""
        if months:
            year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
            date = datetime.date(year, month, 1)
        else:
            date = local.date() + datetime.timedelta(days=days)
        found = int(datetime.datetime.combine(date, datetime.time(), self.zone).timestamp())
        # Where midnight is left out, the day begins with what comes after it; and it always goes on.
        now = int(local.timestamp())
        return found if found > now else now + 1


def parse_cron(text: str, field: str, zone: str = "UTC") -> CronExpression:
    """Reads an expression.

    Args:
        text: As the user wrote it.
        field: Where it is in the request.
        zone: Where the clock hangs unless the expression says so.

    Raises:
        InvalidArgument: It is none.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidArgument(f"must be at most {MAX_CHARACTERS} characters", field=field)
    rest = text.strip()
    for prefix in ("TZ=", "CRON_TZ="):
        if rest.startswith(prefix):
            zone, _, rest = rest.removeprefix(prefix).partition(" ")
            break
    try:
        clock: datetime.tzinfo = zoneinfo.ZoneInfo(zone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise InvalidArgument(f"there is no time zone {zone!r}", field=field) from error
    rest = rest.strip()
    if rest.startswith("@every "):
        return _every(rest.removeprefix("@every "), clock, field)
    if rest.startswith("@"):
        if rest not in _DESCRIPTORS:
            raise InvalidArgument(
                f"must be one of {', '.join(_DESCRIPTORS)} or @every DURATION, not {rest!r}", field=field
            )
        rest = _DESCRIPTORS[rest]
    words = rest.split()
    if len(words) == 5:
        words.append("*")
    if len(words) != 6:
        message = f"must have 6 fields, seconds first ('0 30 9 * * mon-fri' is half past nine), not {len(words)}"
        raise InvalidArgument(message, field=field)
    try:
        read = [_values(word, kind, field) for word, kind in zip(words, _FIELDS, strict=True)]
    except InvalidArgument as error:
        if len(words) == len(rest.split()):
            raise
        message = "; of 5 fields the first is the seconds, as of 6 ('0 30 9 * * mon-fri' is half past nine)"
        raise InvalidArgument(error.message.removeprefix(f"{field}: ") + message, field=field) from error
    seconds, minutes, hours, days, months, weekdays = read
    any_day = any(part[:1] in {"*", "?"} for word in (words[3], words[5]) for part in word.split(","))
    return CronExpression(seconds, minutes, hours, days, months, weekdays, any_day=any_day, zone=clock)


def _values(word: str, kind: _Field, field: str) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        found.update(_range(part, kind, field))
    return frozenset(found)


def _range(part: str, kind: _Field, field: str) -> Iterator[int]:
    span, slash, step_text = part.partition("/")
    first, dash, last = span.partition("-")
    if first in {"*", "?"} and not dash:
        start, end = kind.least, kind.most
    else:
        start = _number(first, kind, part, field)
        end = _number(last, kind, part, field) if dash else kind.most if slash else start
    step = _number(step_text, None, part, field) if slash else 1
    if start < kind.least or end > kind.most or start > end or step < 1:
        message = f"{kind.name} must be within {kind.least}-{kind.most}, in order, with a step of at least 1: {part!r}"
        raise InvalidArgument(message, field=field)
    return iter(range(start, end + 1, step))


def _number(text: str, kind: _Field | None, part: str, field: str) -> int:
    if kind is not None and text.lower() in kind.names:
        return kind.names[text.lower()]
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        where = kind.name if kind is not None else "step"
        raise InvalidArgument(f"{where} is not understood: {part!r}", field=field)
    return int(text)


def _every(text: str, clock: datetime.tzinfo, field: str) -> CronExpression:
    """Reads a duration as Go writes it; less than a second is a second, and parts of a second do not count."""
    parts = re.findall(r"(\d{1,12}(?:\.\d{0,9})?|\.\d{1,9})(ns|us|µs|μs|ms|s|m|h)", text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise InvalidArgument(f"must be a duration such as 1h30m or 90s, not {text[:50]!r}", field=field)
    total = int(sum((Fraction(number) * _UNITS[unit] for number, unit in parts), Fraction(0)))
    if total > 100 * 366 * 86_400:
        raise InvalidArgument("must be at most 100 years", field=field)
    none: frozenset[int] = frozenset()
    return CronExpression(none, none, none, none, none, none, any_day=True, zone=clock, every=max(1, total))
