"""What KFP puts into the parameters of the runs that a recurring run makes.

`[[ScheduledTime]]`, `[[CurrentTime]]` (as 20060102150405, UTC), `[[Index]]` (from 1), `[[RunUUID]]`, and the times with
a layout of Go's package time, such as `[[ScheduledTime.2006-01-02]]`. Anything else in double brackets stays as it is.
"""

import datetime
import re
from dataclasses import dataclass
from typing import Any

_PLACEHOLDER = re.compile(r"\[\[(.*?)\]\]")
_DEFAULT_LAYOUT = "20060102150405"


@dataclass(frozen=True, slots=True)
class Firing:
    """What the placeholders stand for.

    Args:
        scheduled: When the run was to begin; seconds since the epoch.
        now: The time.
        index: How many runs the recurring run has made, with this one.
        run_id: Of the run.
    """

    scheduled: int
    now: int
    index: int
    run_id: str


def fill(value: Any, firing: Firing) -> Any:
    """Replaces placeholders in text, also within lists and structs (not in the names of fields)."""
    if isinstance(value, str):
        return "\n".join(_line(line, firing) for line in value.split("\n"))
    if isinstance(value, list):
        return [fill(item, firing) for item in value]
    if isinstance(value, dict):
        return {name: fill(item, firing) for name, item in value.items()}
    return value


def _line(line: str, firing: Firing) -> str:
    end = line.rfind("]]") + 2 if "]]" in line else 0  # behind it each "[[" would be looked after to the line's end
    return _PLACEHOLDER.sub(lambda found: _text(found, firing), line[:end]) + line[end:]


def _text(found: re.Match[str], firing: Firing) -> str:
    name, dot, layout = found[1].partition(".")
    if name in {"ScheduledTime", "CurrentTime"}:
        seconds = firing.scheduled if name == "ScheduledTime" else firing.now
        return go_time(seconds, layout if dot else _DEFAULT_LAYOUT)
    if dot:
        return found[0]
    return {"Index": str(firing.index), "RunUUID": firing.run_id}.get(name, found[0])


# Go's layouts are a reference time, Mon Jan 2 15:04:05 MST 2006, written as one wants it. The longest comes first.
_LAYOUT = re.compile(
    r"January|Jan|Monday|Mon|MST|2006|Z07:00:00|Z070000|Z07:00|Z0700|Z07|-07:00:00|-070000|-07:00|-0700|-07|002|__2"
    r"|01|02|03|04|05|06|15|PM|pm|_2(?!006)|[.,]0+(?!\d)|[.,]9+(?!\d)|1|2|3|4|5"
)


def go_time(seconds: int, layout: str) -> str:
    """Writes a time in UTC by a layout of Go (https://pkg.go.dev/time#pkg-constants)."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    hour = moment.hour % 12 or 12
    day = moment.timetuple().tm_yday
    parts = {
        "January": f"{moment:%B}",
        "Jan": f"{moment:%b}",
        "Monday": f"{moment:%A}",
        "Mon": f"{moment:%a}",
        "MST": "UTC",
        "2006": f"{moment.year:04}",
        "06": f"{moment.year % 100:02}",
        "01": f"{moment.month:02}",
        "1": str(moment.month),
        "02": f"{moment.day:02}",
        "_2": f"{moment.day:2}",
        "2": str(moment.day),
        "002": f"{day:03}",
        "__2": f"{day:3}",
        "15": f"{moment.hour:02}",
        "03": f"{hour:02}",
        "3": str(hour),
        "04": f"{moment.minute:02}",
        "4": str(moment.minute),
        "05": f"{moment.second:02}",
        "5": str(moment.second),
        "PM": "PM" if moment.hour >= 12 else "AM",
        "pm": "pm" if moment.hour >= 12 else "am",
    }

    def one(found: re.Match[str]) -> str:
        text = found[0]
        if text in parts:
            return parts[text]
        if text[0] == "Z":
            return "Z"
        if text[0] == "-":
            return "+" + re.sub(r"\d", "0", text[1:])
        return text[0] + text[1:] if text[1] == "0" else ""  # parts of a second: there are none

    return _LAYOUT.sub(one, layout)
