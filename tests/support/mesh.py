"""A whole mesh, as `mlmesh up` starts it, for tests."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlmesh.description import load


@dataclass(frozen=True)
class ServiceAddress:
    grpc: str
    """host:port"""
    http: str
    """URL"""


class RunningMesh:
    """A mesh that `mlmesh up --detach` has started; everything is asked of the command line, as a user would."""

    def __init__(self, data_dir: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._options = options
        self._env = {**os.environ, **(env or {})}
        self.ingress = ""
        """URL of the ingress."""
        self.ready_seconds = 0.0

    def command(
        self, *arguments: str, timeout: float = 90, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `mlmesh ARGUMENTS`."""
        argv = [sys.executable, "-m", "mlmesh", *arguments]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, env=self._env, input=input, check=False
        )

    def up(self) -> "RunningMesh":
        data_dir = str(self.data_dir)
        done = self.command("up", "--detach", "--auto-ports", "--data-dir", data_dir, "--json", *self._options)
        assert done.returncode == 0, f"{done.stderr}\n{done.stdout}\n{self.all_logs()}"
        answer = json.loads(done.stdout)
        self.ingress, self.ready_seconds = answer["ingress"], answer["ready_seconds"]
        return self

    def down(self) -> None:
        done = self.command("down", "--data-dir", str(self.data_dir))
        assert done.returncode == 0, done.stderr

    @property
    def grpc(self) -> str:
        """host:port of the ingress, for gRPC clients."""
        return urlsplit(self.ingress).netloc

    def state(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "run" / "mesh.json").read_text())

    def status(self) -> dict[str, Any]:
        return json.loads(self.command("status", "--data-dir", str(self.data_dir), "--json").stdout)

    def service(self, name: str) -> ServiceAddress:
        ports = self.state()["processes"][name]["ports"]
        return ServiceAddress(f"127.0.0.1:{ports['grpc']}", f"http://127.0.0.1:{ports['http']}")

    def pid(self, name: str) -> int:
        return int(self.state()["processes"][name]["pid"])

    def log(self, name: str) -> str:
        return (self.data_dir / "logs" / f"{name}.log").read_text()

    def all_logs(self, lines: int = 40) -> str:
        """The end of each log, for when something went wrong."""
        ends = []
        for path in sorted((self.data_dir / "logs").glob("*.log")):
            end = "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            ends.append(f"--- {path.name}\n{end}")
        return "\n".join(ends)

    def kill(self, name: str) -> int:
        """Kills a process with SIGKILL, as soon as it has one, and returns its pid."""
        pid = self.wait(lambda: self.pid(name))
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_ready(self, timeout_seconds: float = 30) -> None:
        """Waits until the ingress has found every service healthy (again)."""
        import httpx

        def healthy() -> bool:
            try:
                return httpx.get(f"{self.ingress}/healthz", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        self.wait(healthy, timeout_seconds)

    @staticmethod
    def wait(condition: Any, timeout_seconds: float = 30) -> Any:
        """Waits until a condition holds, and gives its value."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {condition}"
            time.sleep(0.05)


def installed_services() -> list[str]:
    return [name for name, s in load().services.items() if importlib.util.find_spec(f"{s.module}.server") is not None]


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """All services behind the ingress; one for the whole test session."""
    data_dir = tmp_path_factory.mktemp("mesh")
    running = RunningMesh(data_dir, *(f"--service={name}" for name in installed_services()))
    running.up()
    yield running
    running.down()
    shutil.rmtree(data_dir, ignore_errors=True)
