"""Clears away what a service that was killed left running."""

import contextlib
import hashlib
import os
import signal

import psutil

from mlmesh_kit.proc import kill_marked

# The system's clock may be stepped between two readings of a process's start.
_TOLERANCE_SECONDS = 2.0


def mark_of(name: str) -> str:
    """Gives the mark (see `ProcessSpec.mark`) for what a service calls an attempt; the same name, the same mark."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def sweep(pid: int | None, started: float | None, mark: str = "") -> int:
    """Kills what is left of a process and of all that descends from it; gives how many processes that were.

    A process id may have been given to another process since: nothing is touched unless the start times agree. What has
    left the process's group is found by the mark alone.

    Args:
        pid: As `Process.pid` had it; None: it is not known.
        started: As `Process.started` had it, seconds since the epoch.
        mark: As `ProcessSpec.mark` had it.
    """
    swept = _sweep_group(pid, started) if pid and started is not None else 0
    return swept + kill_marked([mark] if mark else [])


def _sweep_group(pid: int, started: float) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(pid).create_time() - started) > _TOLERANCE_SECONDS:
            return 0
    swept = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            is_member = os.getpgid(process.pid) == pid
            if is_member and process.create_time() >= started - _TOLERANCE_SECONDS and process.pid != os.getpid():
                os.kill(process.pid, signal.SIGKILL)
                swept += 1
    return swept
