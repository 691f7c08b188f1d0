"""The limits of attempts: what the component says, within what the settings say."""

import asyncio
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from mlmesh_kit.launch import Limits
from mlmesh_kit.quantity import format_bytes

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.ir.container_resources import Resources

_OOM_SCORE = 500
_PROCESSES = 1024
_PROCESSES_OF_CPU = 256
_SHARE_OF_MEMORY = 0.8
_SHARE_OF_ALL = 0.9
_SHARE_OF_DISK = 0.9
_DISK_SECONDS = 1.0
_DISK_IDLE_SHARE = 20
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def memory_of_all(settings: Settings) -> int:
    """Gives the bytes that all attempts together may use: the rest is for the service."""
    return int(settings.machine.memory * _SHARE_OF_ALL)


def disk_limit(settings: Settings, folder: Path) -> int:
    """Gives the bytes that an attempt may write: by the settings, or else most of what is free now."""
    return settings.max_task_disk or int(shutil.disk_usage(folder).free * _SHARE_OF_DISK)


def limits_of(settings: Settings, resources: Resources, disk: int) -> Limits:
    """Gives the limits of an attempt.

    Args:
        settings: Of the service.
        resources: What the component says.
        disk: See `disk_limit`; no single file may be larger.
    """
    most = settings.max_task_memory or int(settings.machine.memory * _SHARE_OF_MEMORY)
    return Limits(
        memory_bytes=min(resources.memory_limit or most, most),
        processes=settings.max_task_processes
        or max(_PROCESSES, settings.machine.millicpus * _PROCESSES_OF_CPU // 1000),
        cpus=_whole_cpus(resources),
        open_files=settings.max_task_open_files,
        file_bytes=disk,
        log_bytes=settings.max_log_bytes,
        nice=settings.task_nice,
        oom_score=_OOM_SCORE,
    )


def thread_variables(resources: Resources) -> dict[str, str]:
    """Gives the variables by which numerical libraries take no more threads than there are CPUs for."""
    cpus = _whole_cpus(resources)
    return dict.fromkeys(_THREAD_VARIABLES, str(cpus)) if cpus else {}


async def wait_for_excess(folders: Sequence[Path], limit: int, given: int) -> str:
    """Waits until folders hold more than a limit; says so in words.

    Args:
        folders: They may go, and come, meanwhile.
        limit: Bytes on the disk.
        given: Bytes in them that do not count: inputs that were fetched, as `used_bytes` had them.
    """
    pause = _DISK_SECONDS
    while True:
        await asyncio.sleep(pause)
        before = time.monotonic()
        used = await asyncio.to_thread(used_bytes, folders) - given
        if used > limit:
            return f"wrote more to the disk than its limit of {format_bytes(limit)} ({format_bytes(used)})"
        pause = max(_DISK_SECONDS, _DISK_IDLE_SHARE * (time.monotonic() - before))


def used_bytes(folders: Sequence[Path]) -> int:
    """Gives the bytes that folders hold on the disk; what is not there, or goes meanwhile, holds none."""
    used = 0
    left = [str(folder) for folder in folders]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    used += _blocks(entry)
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except OSError:
            continue
    return used


def _blocks(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0


def _whole_cpus(resources: Resources) -> int:
    return math.ceil(resources.cpu_limit / 1000)
