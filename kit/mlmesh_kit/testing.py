"""Services as real processes, for tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import grpc


class ServiceProcess:
    """A service in a process of its own, on free loopback ports, with its state in a folder of the test's.

    Args:
        module: What `python -m` starts (`mlmesh_metadata`).
        prefix: Of its settings (`MLMESH_METADATA_`).
        data_dir: Its data directory; a second process on the same one continues its work.
        settings: Further settings without the prefix (`{"MAX_WORKERS": "4"}`).
        env: Further environment variables, as they are.

    Use as a context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        module: str,
        prefix: str,
        data_dir: Path,
        settings: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.module = module
        self.data_dir = data_dir
        self._prefix = prefix
        self._settings = dict(settings or {})
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        self._log: IO[bytes] | None = None

    def __enter__(self) -> "ServiceProcess":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def grpc(self) -> str:
        """host:port of the gRPC port."""
        return f"127.0.0.1:{self._ports['grpc']}"

    @property
    def http(self) -> str:
        """URL of the HTTP port."""
        return f"http://127.0.0.1:{self._ports['http']}"

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """What it wrote to standard output and error."""
        return self.data_dir / f"{self.module}.log"

    def start(self, timeout_seconds: float = 30) -> "ServiceProcess":
        """Starts it and waits until it serves.

        Raises:
            RuntimeError: It ended, or was not ready in time; the message ends with its log.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        ready = self.data_dir / f"{self.module}.ready"
        ready.unlink(missing_ok=True)
        own = {"DATA_DIR": str(self.data_dir), "GRPC_PORT": "0", "HTTP_PORT": "0", "READY_FILE": str(ready)}
        settings = {self._prefix + name: value for name, value in {**own, **self._settings}.items()}
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            env={**os.environ, **self._env, **settings},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout_seconds
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.module} did not start:\n{self.log_path.read_text()[-4000:]}")
            time.sleep(0.02)
        self._ports = json.loads(ready.read_text())
        return self

    def channel(self) -> Any:
        """Opens a gRPC channel to it (plain, not asyncio); the caller closes it."""
        return grpc.insecure_channel(self.grpc)

    def kill(self) -> None:
        """Kills it with SIGKILL and waits for its end; `start` then starts it anew."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, timeout_seconds: float = 20) -> int:
        """Asks it to end (SIGTERM), waits, and gives its exit code; kills it, and what it started, if it does not."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        if self._log is not None:
            self._log.close()
        return code
