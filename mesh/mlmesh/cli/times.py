"""Points in time, as the services write them."""

import datetime


def parse_time(text: str | None) -> datetime.datetime | None:
    """Reads a timestamp; None where there is none."""
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return None


def local_time(text: str | None) -> str:
    """Gives a timestamp as the clock on the wall had it; empty where there is none."""
    found = parse_time(text)
    return found.astimezone().strftime("%Y-%m-%d %H:%M:%S") if found else ""


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Gives how long something took, or has taken until now; None where it has not begun."""
    began = parse_time(start)
    if began is None:
        return None
    ended = parse_time(end) or datetime.datetime.now(datetime.UTC)
    return max(0.0, (ended - began).total_seconds())


def short(seconds: float | None) -> str:
    """Gives a duration in a few characters: 0.4 s, 12.0 s, 3 min 5 s."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
