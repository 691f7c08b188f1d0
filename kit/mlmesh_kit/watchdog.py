"""Looks after the helper's processes: what takes more than its limit is killed, and what has lost its parent.

A process started by the helper is where its own descendants go when they lose their parent (PR_SET_CHILD_SUBREAPER),
and the helper is where they go when it has ended. So a process and all it has made are a tree, whatever sessions and
groups they have put themselves into, and each child that the helper did not start is left over.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmesh_kit import proc

TICK_SECONDS = 0.1
_IDLE_SHARE = 30  # a look may take one part in so many of the time
_PAUSE_SECONDS = 0.001
_MANY_THREADS = 100
_CHUNK = 1 << 20
_NOTE_BYTES = 1000


@dataclass(slots=True)
class Child:
    """A process that the helper has started.

    Attributes:
        number: The service's number for it.
        limits: As the request had them.
        log: Its log, open.
        slot: Where it says that it has left nothing behind; -1: it cannot.
        cpus: Those it is bound to.
        exceeded: Which limit it was killed for, in words.
        dropped: How many bytes of its log were dropped.
    """

    number: int
    limits: Mapping[str, int]
    log: int
    slot: int = -1
    cpus: tuple[int, ...] = ()
    exceeded: str = ""
    dropped: int = 0
    since: float = field(default_factory=time.monotonic)


class Watchdog:
    """Watches the helper's children.

    Args:
        running: The children, by process id; the helper keeps it.
        total_bytes: Memory that all together may take; 0: no limit.
    """

    def __init__(self, running: dict[int, Child], total_bytes: int) -> None:
        self._running = running
        self._total = total_bytes
        self._pid = os.getpid()
        self._group = os.getpgrp()
        self._tick = 0.0
        self._next = 0.0
        self._threads = 0

    def wait_seconds(self) -> float | None:
        """How long until the next call of `look`; None: there is nothing to look at."""
        if not self._running:
            return None
        first = min(child.since for child in self._running.values()) + TICK_SECONDS
        return max(self._tick, first) - time.monotonic()

    def look(self) -> None:
        """Looks, if it is time to: in each tick, but less often where that costs much and nothing multiplies."""
        wait = self.wait_seconds()
        if wait is None or wait > 0:
            return
        before = time.monotonic()
        self._tick = before + TICK_SECONDS
        threads = proc.threads_of_all()
        grew = threads > self._threads + _MANY_THREADS
        if before >= self._next or grew:
            self._look()
            after = time.monotonic()
            self._next = after + (after - before) * _IDLE_SHARE
            self._tick = after + TICK_SECONDS
            self._threads = threads

    def _look(self) -> None:
        rows = proc.table()
        children = proc.children_of(rows)
        used: dict[int, int] = {}
        for pid, child in self._running.items():
            living = [row for row in proc.tree(rows, children, pid) if not row.dead]
            self.trim_log(child)
            count = sum(row.threads for row in living)
            if 0 < child.limits.get("processes", 0) < count:
                child.exceeded = f"had more processes and threads than its limit of {child.limits['processes']}"
                self._kill(living)
                continue
            used[pid] = self._memory(living, child.limits.get("memory", 0))
            if 0 < child.limits.get("memory", 0) < used[pid]:
                limit, amount = _size(child.limits["memory"]), _size(used[pid])
                child.exceeded = f"used more memory than its limit of {limit} ({amount})"
                self._kill(living)
        if 0 < self._total < sum(used.values()):
            self._relieve(used, rows, children)
        if any(row.pid not in self._running and not row.dead for row in children.get(self._pid, ())):
            self.end_orphans(TICK_SECONDS)

    def end_orphans(self, seconds: float) -> None:
        """Kills what ended processes have left, and what that has made, until nothing is left.

        Args:
            seconds: Longest time that it goes on, should they multiply as fast as they die.
        """
        deadline = time.monotonic() + seconds
        while True:
            rows = proc.table()
            children = proc.children_of(rows)
            orphans = [row for row in children.get(self._pid, ()) if row.pid not in self._running]
            living = [row for one in orphans for row in proc.tree(rows, children, one.pid) if not row.dead]
            self._kill(living)
            for row in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(row.pid, os.WNOHANG)
            if not living or time.monotonic() > deadline:
                return
            time.sleep(_PAUSE_SECONDS)

    def _memory(self, living: list[proc.Row], limit: int) -> int:
        """What a tree takes; reckoned only if resident memory, where shared pages count each time, is near a limit."""
        rough = sum(row.rss_bytes for row in living)
        bounds = [bound for bound in (limit, self._total // 2) if bound > 0]
        if not bounds or rough <= min(bounds):
            return rough if self._total else 0
        return sum(proc.memory_of(row.pid) for row in living)

    def _relieve(self, used: Mapping[int, int], rows: Mapping[int, proc.Row], children: Any) -> None:
        """All together take more than there is: the largest goes."""
        exact = {
            pid: sum(proc.memory_of(row.pid) for row in proc.tree(rows, children, pid))
            for pid in used
            if not self._running[pid].exceeded
        }
        if exact and sum(exact.values()) > self._total:
            largest = max(exact, key=lambda pid: exact[pid])
            words = (
                f"the tasks used more memory than the {_size(self._total)} they may have together; this one the most"
            )
            self._running[largest].exceeded = f"was stopped: {words} ({_size(exact[largest])})"
            self._kill(proc.tree(rows, children, largest))

    def _kill(self, living: list[proc.Row]) -> None:
        # A group dies at once: what is just being forked in it, too. It may be another child's, though.
        own = {row.pid for row in living}
        others = {self._group, *self._running} - own
        for group in {row.group for row in living} - others:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for row in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(row.pid, signal.SIGKILL)

    def trim_log(self, child: Child, *, ended: bool = False) -> None:
        """Drops the middle of a log that has grown beyond its limit.

        Args:
            child: Whose.
            ended: Nobody writes to it any more, so that its end can be kept, too.
        """
        limit = child.limits.get("log", 0)
        with contextlib.suppress(OSError):
            size = os.fstat(child.log).st_size
            if not 0 < limit < size:
                return
            keep = limit // 2
            # The process appends meanwhile. This is another opening of the file, which writes where it is told to.
            log = os.open(f"/proc/self/fd/{child.log}", os.O_RDWR)
            try:
                rest = max(0, min(keep, size - keep - _NOTE_BYTES)) if ended else 0  # begins behind where it goes
                child.dropped += size - keep - rest
                note = f"\n[... {child.dropped} bytes were dropped here: the log grew beyond {_size(limit)} ...]\n"
                end = keep + os.pwrite(log, note.encode(), keep)
                for start in range(size - rest, size, _CHUNK):
                    end += os.pwrite(log, os.pread(log, min(_CHUNK, size - start), start), end)
                os.ftruncate(log, end)
            finally:
                os.close(log)


def _size(count: int) -> str:
    for unit, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + unit
    return str(count)
