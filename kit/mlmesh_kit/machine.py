"""What this machine, or the container that this process is in, has: CPUs and memory."""

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def cpu_count(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> float:
    """Gives how many CPUs this process may use: those that it is bound to, and what its control groups grant.

    Args:
        proc: Where the proc file system is.
        cgroups: Where the control groups are; version 1 and 2 are read.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = [float(here)]
    for folder in _groups("cpu", proc, cgroups):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
            granted.append(int(quota) / int(period))
    return min(granted)


def memory_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Gives the memory that this process may use, with what is used already: the machine's or its control groups'.

    Args:
        proc: Where the proc file system is.
        cgroups: Where the control groups are; version 1 and 2 are read.
    """
    granted = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _groups("memory", proc, cgroups):
        limits = (_read(folder / name) for name in ("memory.max", "memory.limit_in_bytes"))
        granted += [int(limit) for limit in limits if limit.isdecimal()]
    return min(granted)


def _groups(controller: str, proc: Path, cgroups: Path) -> Iterator[Path]:
    """Gives the folders of the groups that this process is in, and of those around them."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            roots = [cgroups, cgroups / "unified"]
        elif controller in controllers.split(","):
            roots = [cgroups / controllers, cgroups / controller]
        else:
            continue
        for root in roots:
            # In a container the path may be that of the host, where there is nothing here; its own group is the root.
            inner = root / path.lstrip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
