"""Reads the logs of a mesh's processes."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHUNK = 64 << 10


def last_lines(path: Path, count: int) -> list[str]:
    """Gives the last lines of a file, reading no more of it than they need."""
    if count <= 0:
        return []
    with path.open("rb") as file:
        position = file.seek(0, 2)
        data = b""
        while position > 0 and data.count(b"\n") <= count:
            step = min(_CHUNK, position)
            position = file.seek(position - step)
            data = file.read(step) + data
    return data.decode(errors="replace").splitlines()[-count:]


def follow(path: Path, poll_seconds: float = 0.2) -> Iterator[str]:
    """Gives lines as they are written, from now on; goes on when the file is rotated."""
    with path.open("rb") as file:
        file.seek(0, 2)
        rest = b""
        while True:
            chunk = file.read(_CHUNK)
            if chunk:
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
                continue
            if path.exists() and path.stat().st_size < file.tell():
                file.seek(0)
            time.sleep(poll_seconds)


def readable(line: str) -> str:
    """Turns a JSON log line into one for people; leaves any other as it is."""
    if not line.startswith("{"):
        return line
    try:
        entry: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return line
    if "message" not in entry or "time" not in entry:
        return line
    known = {"time", "level", "service", "logger", "message", "exception", "color_message"}
    extra = " ".join(f"{key}={value}" for key, value in entry.items() if key not in known)
    text = f"{entry['time']} {entry.get('level', ''):<7} {entry.get('logger', '')}: {entry['message']} {extra}".rstrip()
    return f"{text}\n{entry['exception']}" if "exception" in entry else text
