"""Clears away what a service that was killed left running."""

import contextlib
import os
import signal

import psutil

# The system's clock may be stepped between two readings of a process's start.
_TOLERANCE_SECONDS = 2.0


def sweep(pid: int, started: float) -> int:
    """Kills what is left of the process group that `pid` led; gives how many processes that were.

    A process id may have been given to another process since: nothing is touched unless the start times agree.

    Args:
        pid: As `Process.pid` had it.
        started: As `Process.started` had it, seconds since the epoch.
    """
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
