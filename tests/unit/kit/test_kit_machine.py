"""What a machine has, read from control groups of both versions, as laid out in a folder."""

import os
from pathlib import Path

import pytest
from mlmesh_kit.machine import cpu_count, memory_bytes

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def found(folder: Path, membership: str, files: dict[str, str]) -> tuple[float, int]:
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    return cpu_count(proc, groups), memory_bytes(proc, groups)


@pytest.mark.parametrize(
    ("membership", "files", "cpus", "memory"),
    [
        ("", {}, CPUS, PHYSICAL),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, CPUS, PHYSICAL),
        (
            "0::/a/b\n",
            {"a/b/cpu.max": "50000 100000\n", "a/memory.max": "1048576\n", "a/b/memory.max": "max"},
            0.5,
            1 << 20,
        ),
        ("0::/of/the/host\n", {"cpu.max": "25000 100000\n", "memory.max": "4096\n"}, 0.25, 4096),
        (
            "4:memory:/x\n2:cpu,cpuacct:/x\n0::/\n",
            {
                "memory/x/memory.limit_in_bytes": "2097152\n",
                "cpu,cpuacct/x/cpu.cfs_quota_us": "10000\n",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            0.1,
            2 << 20,
        ),
        (
            "4:memory:/\n1:cpu:/\n",
            {"memory/memory.limit_in_bytes": "9223372036854771712\n", "cpu/cpu.cfs_quota_us": "-1\n"},
            CPUS,
            PHYSICAL,
        ),
    ],
)
def test_what_there_is(tmp_path: Path, membership: str, files: dict[str, str], cpus: float, memory: int) -> None:
    assert found(tmp_path, membership, files) == (cpus, memory)
