"""What `/proc` says of processes: little, and cheap enough to be asked ten times a second.

Where there is no `/proc` (macOS) nothing is found. Light to import: each process that the helper forks carries it.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

MARK = "MLMESH_PROCESS"
"""Variable that names the process which another descends from, whatever its parent and group are by now."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_COUNTED = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")
_PAUSE_SECONDS = 0.002


class Row(NamedTuple):
    """A process.

    Attributes:
        pid: Its id.
        parent: Its parent's id.
        group: Its process group.
        threads: How many it has.
        rss_bytes: Its resident memory; what it shares with others is counted whole.
        dead: It has ended, and nobody has asked how yet.
    """

    pid: int
    parent: int
    group: int
    threads: int
    rss_bytes: int
    dead: bool


def table() -> dict[int, Row]:
    """Reads all processes, by id; one that ends meanwhile is left out."""
    rows = {}
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                text = file.read(1024)
        except OSError:
            continue
        # The name, in parentheses, may hold anything; what follows the last one is numbers.
        fields = text[text.rindex(b")") + 2 :].split(maxsplit=22)
        dead = fields[0] in {b"Z", b"X"}
        rows[pid] = Row(pid, int(fields[1]), int(fields[2]), int(fields[17]), int(fields[21]) * _PAGE, dead)
    return rows


def threads_of_all() -> int:
    """Counts the threads of all processes; much quicker than `table`. 0: it cannot be told."""
    try:
        with open("/proc/loadavg", "rb", buffering=0) as file:
            return int(file.read(100).split()[3].partition(b"/")[2])
    except (OSError, IndexError, ValueError):
        return 0


def children_of(rows: Mapping[int, Row]) -> dict[int, list[Row]]:
    """Sorts processes by their parents."""
    found: dict[int, list[Row]] = {}
    for row in rows.values():
        found.setdefault(row.parent, []).append(row)
    return found


def tree(rows: Mapping[int, Row], children: Mapping[int, list[Row]], root: int) -> list[Row]:
    """Gives a process and all that descend from it; dead ones too."""
    found = [rows[root]] if root in rows else []
    for row in found:
        found += children.get(row.pid, ())
    return found


def memory_of(pid: int) -> int:
    """Gives the bytes that a process holds: anonymous, in shared memory or swapped; shared pages by their share.

    Mapped files are left out: the system takes those pages back when it needs them.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith(_COUNTED))
    except OSError:  # it has ended
        return 0


def marked(marks: Collection[str]) -> list[int]:
    """Gives the living processes, without this one, that carry one of the marks in the environment they began with."""
    wanted = [f"{MARK}={mark}\0".encode() for mark in marks]
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            text = file.read(1 << 20) + b"\0"
            if pid != os.getpid() and any(mark in text for mark in wanted):
                found.append(pid)
    return found


def kill_marked(marks: Collection[str], seconds: float = 5) -> int:
    """Kills all that carry one of the marks until there is nobody left; gives how many there were.

    Args:
        marks: See `marked`.
        seconds: Longest time that it goes on, should they multiply as fast as they die.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + seconds
    while marks and (found := marked(marks)) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
        time.sleep(_PAUSE_SECONDS)
        for pid in found:  # this process may have inherited it
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return len(killed)


def address_of_mark() -> int:
    """Finds where the value of the mark is in the environment that this process began with; 0: there is none.

    `/proc/PID/environ` shows that memory, and forks share it: a mark that is written there goes down to all that the
    fork forks in turn, which setting a variable does not.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    start, end = int(fields[47]), int(fields[48])
    name = f"{MARK}=".encode()
    at = ctypes.string_at(start, end - start).find(name) if 0 < start < end else -1
    return start + at + len(name) if at >= 0 else 0


def _pids() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            yield int(name)
