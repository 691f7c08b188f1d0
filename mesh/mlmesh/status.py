"""What a running mesh looks like from outside."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from mlmesh import launch
from mlmesh.description import INGRESS
from mlmesh.supervisor.layout import Layout


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process and all that it has started.

    Attributes:
        healthy: Services: what the ingress' gRPC health check said last. Ingress: whether it answers.
        memory_bytes: Proportional share (PSS) where the system tells, else resident memory; with its children.
    """

    name: str
    state: str
    healthy: bool
    pid: int
    uptime_seconds: float
    restarts: int
    memory_bytes: int
    processes: int
    ports: dict[str, int]
    last_exit: str


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """A mesh: `state` is down when none runs on the data directory."""

    state: str
    data_dir: str
    ingress: str = ""
    pid: int = 0
    ready_seconds: float = 0.0
    memory_bytes: int = 0
    services: tuple[ProcessStatus, ...] = ()


def read_status(data_dir: Path) -> MeshStatus:
    """Looks at the mesh on a data directory."""
    found = launch.running(data_dir)
    if found is None:
        return MeshStatus("down", str(data_dir))
    health = launch.read_health(Layout(data_dir))
    rows = []
    for name, each in found.processes.items():
        memory, count = _memory(each.pid)
        rows.append(
            ProcessStatus(
                name=name,
                state=each.state,
                healthy=each.state == "running" and (bool(health) if name == INGRESS else health.get(name, False)),
                pid=each.pid,
                uptime_seconds=round(time.time() - each.started, 1) if each.pid else 0.0,
                restarts=each.restarts,
                memory_bytes=memory,
                processes=count,
                ports=each.ports,
                last_exit=each.last_exit,
            )
        )
    own, _ = _memory(found.pid, children=False)
    total = own + sum(row.memory_bytes for row in rows)
    return MeshStatus(found.state, str(data_dir), found.ingress, found.pid, found.ready_seconds, total, tuple(rows))


def _memory(pid: int, *, children: bool = True) -> tuple[int, int]:
    """Gives memory and number of processes of a pid and what descends from it."""
    if not pid:
        return 0, 0
    try:
        root = psutil.Process(pid)
        family = [root, *(root.children(recursive=True) if children else [])]
    except psutil.Error:
        return 0, 0
    total = count = 0
    for process in family:
        try:
            full = process.memory_full_info()
            total += getattr(full, "pss", 0) or full.rss
            count += 1
        except psutil.Error:
            continue
    return total, count
