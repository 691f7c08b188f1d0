"""A process that is started again whenever it ends."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mlmesh.supervisor.plan import ProcessPlan, ProcessState

BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Waits before the 1st, 2nd, ... restart in a row; the last one for all further."""
STEADY_SECONDS = 20.0
"""Having lived as long, a process begins again at the first wait."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """Keeps one process running until `stop`.

    Args:
        plan: What to run.
        changed: Called after each change of `state`.
    """

    def __init__(self, plan: ProcessPlan, changed: Callable[[], None]) -> None:
        self.plan = plan
        self.state = ProcessState(ports=plan.ports)
        self._changed = changed
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

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
        parent = os.getpid()

        def leave_with_parent() -> None:
            # Between fork and exec: if the supervisor dies, even by SIGKILL, so does this process.
            if _libc is not None:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(1)

        try:
            with Path(self.plan.log).open("ab") as log:  # noqa: ASYNC230 - a local file, opened once
                self._process = await asyncio.create_subprocess_exec(
                    *self.plan.argv,
                    cwd=self.plan.cwd,
                    env={**os.environ, **self.plan.env},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=leave_with_parent,
                )
        except OSError as error:
            return f"could not be started: {error}"
        self._note("running", pid=self._process.pid, started=time.time())
        code = await self._process.wait()
        self._kill_group()
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    def _kill_group(self) -> None:
        """Ends what the process has left behind in its group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Ends it: TERM, then after its grace KILL for the whole group."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._note("stopping")
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.plan.grace_seconds):
                await process.wait()
        except TimeoutError:
            self._kill_group()
            await process.wait()

    def _note(self, state: str, *, pid: int | None = None, started: float | None = None, last_exit: str = "") -> None:
        self.state.state = state
        if state in {"waiting", "stopped"}:
            self.state.pid = 0
        if pid is not None and started is not None:
            self.state.pid, self.state.started = pid, started
        self.state.last_exit = last_exit or self.state.last_exit
        self._changed()
