"""A process that is started again whenever it ends."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from mlmesh_kit.errors import Unavailable
from mlmesh_kit.launch import Launcher, Process, ProcessSpec

from mlmesh.supervisor.plan import ProcessPlan, ProcessState

BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Waits before the 1st, 2nd, ... restart in a row; the last one for all further."""
STEADY_SECONDS = 20.0
"""Having lived as long, a process begins again at the first wait."""


class Child:
    """Keeps one process running until `stop`.

    Args:
        plan: What to run.
        launcher: Starts it.
        changed: Called after each change of `state`.
    """

    def __init__(self, plan: ProcessPlan, launcher: Launcher, changed: Callable[[], None]) -> None:
        self.plan = plan
        self.state = ProcessState(ports=plan.ports)
        self._launcher = launcher
        self._changed = changed
        self._stopping = asyncio.Event()
        self._process: Process | None = None

    async def run(self) -> None:
        """Starts it, and again whenever it ends, until `stop`."""
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            ended = await self._live()
            self._note("stopped" if self._stopping.is_set() else "waiting", last_exit=ended)
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures
            wait = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            failures += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
            self.state.restarts += 1
        self._note("stopped")

    async def _live(self) -> str:
        spec = ProcessSpec(
            argv=self.plan.argv,
            cwd=Path(self.plan.cwd),
            env={**os.environ, **self.plan.env},
            log_path=Path(self.plan.log),
            name=self.plan.name,
        )
        try:
            self._process = await self._launcher.start(spec)
        except Unavailable as error:
            return f"could not be started: {error.message}"
        self._note("running", pid=self._process.pid, started=time.time())
        if self._stopping.is_set():  # told to stop while it was being started
            return (await self._process.terminate(self.plan.grace_seconds)).describe()
        return (await self._process.wait()).describe()

    async def stop(self) -> None:
        """Ends it: TERM, then after its grace KILL, for the whole group."""
        self._stopping.set()
        if self._process is not None and self.state.pid:
            self._note("stopping")
            await self._process.terminate(self.plan.grace_seconds)

    def _note(self, state: str, *, pid: int | None = None, started: float | None = None, last_exit: str = "") -> None:
        self.state.state = state
        if state in {"waiting", "stopped"}:
            self.state.pid = 0
        if pid is not None and started is not None:
            self.state.pid, self.state.started = pid, started
        self.state.last_exit = last_exit or self.state.last_exit
        self._changed()
