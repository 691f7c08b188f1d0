"""Logs that do not grow without end."""

import shutil
from pathlib import Path

MAX_BYTES = 16 << 20
KEPT = 3


def rotate(log: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> bool:
    """Moves a log that has grown too large to `.1`, that to `.2`, and so on; tells whether it did.

    The process that writes keeps its descriptor (opened for appending), so the content is copied and the file cut
    to nothing. Lines written in between the two, a matter of milliseconds, are lost.
    """
    try:
        if log.stat().st_size <= max_bytes:
            return False
    except OSError:
        return False
    for number in range(kept - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    with log.open("r+b") as file:
        file.truncate()
    return True
