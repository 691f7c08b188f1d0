"""What is started, and how it ended."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlmesh_kit.launch.limits import Limits


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A command and its surroundings.

    Args:
        argv: The command. `python` and `python3` mean the interpreter of the service.
        cwd: Working directory; must exist.
        env: The complete environment; nothing is inherited from the service.
        log_path: Standard output and error are appended here. Standard input is empty.
        timeout_seconds: Longest life; after it the whole group is terminated. None: no limit.
        limits: What it may take.
        mark: 32 hexadecimal digits (`mark_of`) by which `sweep` finds what descends from it. "": one of the launcher's.
        name: For people, in logs.
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    log_path: Path
    timeout_seconds: float | None = None
    limits: Limits = field(default_factory=Limits)
    mark: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended.

    Attributes:
        code: Exit code; None if a signal ended it.
        signal: Number of the signal that ended it, else None.
        timed_out: It was terminated for outliving `timeout_seconds`.
        lost: Its end was not seen (the helper process died); it has been killed.
        cpu_seconds: User and system time of the process and the children it waited for.
        max_rss_bytes: Largest resident memory.
        exceeded: Which limit it was killed for, in words; empty if for none.
        error: Why it could not be started, in words; empty if it was.
    """

    code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    lost: bool = False
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    exceeded: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Ended by itself with code 0."""
        return self.code == 0 and not self.timed_out and not self.lost and not self.exceeded

    def describe(self) -> str:
        """Says it in words."""
        if self.error:
            return self.error
        if self.exceeded:
            return self.exceeded
        if self.timed_out:
            return "ran longer than allowed and was stopped"
        if self.lost:
            return "its process was lost"
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = str(self.signal)
            return f"was ended by {name}"
        return f"exited with code {self.code}"


@dataclass(slots=True)
class Process:
    """A process that was started; made by a launcher.

    Attributes:
        pid: Also the id of its process group.
        started: When the system says it was created, seconds since the epoch; with `pid` it names the process for good.
    """

    pid: int
    started: float
    spec: ProcessSpec
    _exit: "asyncio.Future[ExitStatus]" = field(repr=False)
    _timed_out: bool = field(default=False, repr=False)

    async def wait(self) -> ExitStatus:
        """Waits for the end; enforces `timeout_seconds`."""
        try:
            async with asyncio.timeout(self.spec.timeout_seconds):
                return await asyncio.shield(self._exit)
        except TimeoutError:
            self._timed_out = True
            ended = await self.terminate()
            return replace(ended, timed_out=True)

    async def terminate(self, grace_seconds: float = 5) -> ExitStatus:
        """Ends the whole process group: TERM, then after the grace KILL; gives how the process ended."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                return await asyncio.shield(self._exit)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return await asyncio.shield(self._exit)

    def kill(self) -> None:
        """Ends the whole process group at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        # Until its end has been reported the process is at least a zombie, so the id cannot be another's.
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
