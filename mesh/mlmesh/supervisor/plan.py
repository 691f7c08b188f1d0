"""What a supervisor is to run, and what it says of it: two JSON files."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

INGRESS = "ingress"
"""Name of the process that is Envoy."""


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A process to keep running.

    Args:
        name: INGRESS or the service's.
        argv: The command.
        env: Added to the supervisor's environment.
        cwd: Where it starts.
        log: Its output is appended here.
        ports: What it listens on, by name.
        grace_seconds: Between TERM and KILL.
    """

    name: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    log: str
    ports: dict[str, int]
    grace_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one mesh runs.

    Args:
        ingress_url: Of the ingress.
        processes: Started all at once.
        stop_order: Names; those of one list stop together.
        admin_socket: Of Envoy.
        state: Where the state is written.
        rotated: Logs that are rotated.
        drain_seconds: Longest time that the ingress waits for requests under way.
    """

    ingress_url: str
    processes: list[ProcessPlan]
    stop_order: list[list[str]]
    admin_socket: str
    state: str
    rotated: list[str]
    drain_seconds: float

    def write(self, path: Path) -> None:
        """Writes it."""
        replace_text(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Reads what `write` wrote."""
        content: dict[str, Any] = json.loads(path.read_text())
        content["processes"] = [ProcessPlan(**each) for each in content["processes"]]
        return cls(**content)


@dataclass(slots=True)
class ProcessState:
    """What is known of a process.

    Attributes:
        state: starting, running, waiting (to be restarted), stopping or stopped.
        pid: 0 while there is none.
        started: Seconds since the epoch.
        restarts: How often it had to be started again.
        last_exit: How it last ended, in words.
        ports: What it listens on.
    """

    state: str = "starting"
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    last_exit: str = ""
    ports: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class MeshState:
    """What is known of a mesh.

    Attributes:
        state: starting, ready (every service answered once), stopping or stopped.
        pid: Of the supervisor.
        started: Seconds since the epoch.
        ready_seconds: From start to ready; 0 before.
    """

    ingress: str
    state: str = "starting"
    pid: int = 0
    started: float = 0.0
    ready_seconds: float = 0.0
    processes: dict[str, ProcessState] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        replace_text(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> "MeshState | None":
        """Reads it; None if there is none, or it is not what `write` wrote."""
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            content["processes"] = {name: ProcessState(**each) for name, each in content["processes"].items()}
            return cls(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def replace_text(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old or the new, never a part."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(text)
    scratch.replace(path)
