"""What a running mesh looks like from outside."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from mlmesh.running import read_health, running
from mlmesh.supervisor.layout import Layout
from mlmesh.supervisor.plan import INGRESS


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process and all that it has started.

    Attributes:
        healthy: Services: what the ingress' gRPC health check said last. Ingress: whether it answers.
        memory_bytes: With all that it has started; see MeshStatus.
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
    """A mesh.

    Attributes:
        state: down when none runs on the data directory.
        memory_bytes: Of all processes together, the supervisor and its launcher included.
        memory_kind: PSS: pages that processes share are counted once, divided among them. RSS, where the system does
            not tell: they are counted in each.
    """

    state: str
    data_dir: str
    ingress: str = ""
    pid: int = 0
    ready_seconds: float = 0.0
    memory_bytes: int = 0
    memory_kind: str = "PSS"
    services: tuple[ProcessStatus, ...] = ()


def read_status(data_dir: Path) -> MeshStatus:
    """Looks at the mesh on a data directory."""
    found = running(data_dir)
    if found is None:
        return MeshStatus("down", str(data_dir))
    health = read_health(Layout(data_dir))
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
    total, _ = _memory(found.pid)  # all processes descend from the supervisor
    return MeshStatus(
        state=found.state,
        data_dir=str(data_dir),
        ingress=found.ingress,
        pid=found.pid,
        ready_seconds=found.ready_seconds,
        memory_bytes=total,
        memory_kind="PSS" if hasattr(psutil.Process().memory_full_info(), "pss") else "RSS",
        services=tuple(rows),
    )


def _memory(pid: int) -> tuple[int, int]:
    """Gives memory and number of processes of a pid and what descends from it."""
    if not pid:
        return 0, 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
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
