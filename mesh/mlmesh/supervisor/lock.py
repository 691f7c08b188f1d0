"""One supervisor for a data directory. The lock is the kernel's, so that none is ever left over."""

import fcntl
import os
from pathlib import Path


def acquire(path: Path) -> int | None:
    """Locks the file and gives its descriptor, which holds the lock until the last process that has it closes it.

    Returns:
        None when somebody else holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(path: Path) -> bool:
    """Tells whether a supervisor holds the lock."""
    if not path.exists():
        return False
    descriptor = acquire(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False
