"""The service's side of the helper process: asks for processes, hears of their ends."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mlmesh_kit.errors import Unavailable
from mlmesh_kit.launch.process import ExitStatus, Process, ProcessSpec
from mlmesh_kit.proc import MARK, kill_marked

logger = logging.getLogger(__name__)

_LENGTH = struct.Struct(">I")
_START_SECONDS = 120.0  # importing what is preloaded comes first


class Launcher(Protocol):
    """Starts processes on this machine."""

    async def start(self, spec: ProcessSpec) -> Process:
        """Starts a process.

        Raises:
            Unavailable: The system refused (no memory, too many processes).
        """
        ...

    async def close(self) -> None:
        """Kills what still runs."""
        ...


class _Pending:
    def __init__(self, spec: ProcessSpec, loop: asyncio.AbstractEventLoop) -> None:
        self.spec = spec
        self.started: asyncio.Future[Process] = loop.create_future()
        self.exit: asyncio.Future[ExitStatus] = loop.create_future()
        self.pid = 0
        self.mark = spec.mark or uuid.uuid4().hex


class WarmLauncher:
    """Starts Python commands by forking a process that has modules imported already; others the ordinary way.

    A Python command is one whose program is `python`, `python3` or the service's own interpreter, followed by `-m`,
    `-c` or a script. What was preloaded is shared with it: environment variables that a module reads on import (such
    as OPENBLAS_NUM_THREADS) must be set for the launcher, not for the command.

    Args:
        preload: Names of modules to import in advance; one that cannot be imported is logged and left out.
        env: Environment of the helper process; None: that of the service.
        total_memory_bytes: What all processes together may take: when it is more, the largest is killed. 0: no limit.
    """

    _forks_python = True

    def __init__(
        self, preload: Sequence[str] = (), *, env: Mapping[str, str] | None = None, total_memory_bytes: int = 0
    ) -> None:
        self._preload = tuple(preload)
        self._env = env
        self._total_memory = total_memory_bytes
        self._lock = asyncio.Lock()
        self._helper: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0

    async def __aenter__(self) -> "WarmLauncher":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def helper_pid(self) -> int | None:
        """Process id of the helper, None while there is none."""
        return self._helper.pid if self._helper is not None else None

    async def warm_up(self) -> None:
        """Starts the helper ahead of the first command; it imports while the service goes on."""
        async with self._lock:
            await self._ensure_helper()

    async def start(self, spec: ProcessSpec) -> Process:
        """See Launcher."""
        argv = list(spec.argv)
        is_python = argv[0] in {"python", "python3", sys.executable}
        if is_python:
            argv[0] = sys.executable
        message = {
            "argv": argv,
            "cwd": str(spec.cwd),
            "env": dict(spec.env),
            "log": str(spec.log_path),
            "limits": spec.limits.message(),
            "warm": self._forks_python and is_python and _is_simple(argv),
        }
        async with self._lock:
            writer = await self._ensure_helper()
            self._last_id += 1
            number = self._last_id
            pending = self._pending[number] = _Pending(spec, asyncio.get_running_loop())
            data = json.dumps({**message, "id": number, "mark": pending.mark}).encode()
            writer.write(_LENGTH.pack(len(data)) + data)
            with contextlib.suppress(ConnectionError):  # the reader sees the end and fails what is pending
                await writer.drain()
        try:
            async with asyncio.timeout(_START_SECONDS):
                return await asyncio.shield(pending.started)
        except TimeoutError as error:
            pending.started.add_done_callback(_kill_late)
            raise Unavailable("the process could not be started in time") from error
        except asyncio.CancelledError:
            pending.started.add_done_callback(_kill_late)
            raise

    async def close(self) -> None:
        """Kills what still runs, and the helper."""
        async with self._lock:
            if self._writer is not None:
                self._writer.close()
            if self._reader_task is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await self._reader_task
            self._reader_task = None

    async def _ensure_helper(self) -> asyncio.StreamWriter:
        if self._writer is not None:
            return self._writer
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "mlmesh_kit.zygote", str(theirs.fileno()), str(self._total_memory)]
        command += self._preload
        # Forked processes put their marks where this one is, which is why it must be there and as long as they are.
        environment = {**(os.environ if self._env is None else self._env), MARK: uuid.uuid4().hex}
        # Not asyncio's: it would reap the helper's end behind our back; and starting one takes a millisecond.
        self._helper = subprocess.Popen(  # noqa: ASYNC220
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        self._writer = writer
        self._reader_task = asyncio.create_task(self._read(reader, writer, self._helper), name="launcher")
        return writer

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, helper: subprocess.Popen[bytes]
    ) -> None:
        try:
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                self._handle(json.loads(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
            await self._lose_all()
            await asyncio.to_thread(helper.wait)

    def _handle(self, message: dict[str, Any]) -> None:
        pending = self._pending.get(message["id"])
        if pending is None:
            return
        if "pid" in message:
            pending.pid = message["pid"]
            pending.started.set_result(Process(message["pid"], message["started"], pending.spec, pending.exit))
            return
        del self._pending[message["id"]]
        if "error" in message:
            pending.started.set_exception(Unavailable(message["error"]))
            return
        pending.exit.set_result(
            ExitStatus(
                code=message["code"],
                signal=message["signal"],
                cpu_seconds=message["cpu"],
                max_rss_bytes=message["rss"],
                exceeded=message["exceeded"],
            )
        )

    async def _lose_all(self) -> None:
        """The helper is gone: nobody will report these ends, so they end here."""
        lost = list(self._pending.values())
        self._pending.clear()
        if not lost:
            return
        for pending in lost:
            if pending.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pending.pid, signal.SIGKILL)
        await asyncio.to_thread(kill_marked, [pending.mark for pending in lost])
        for pending in lost:
            if not pending.started.done():
                pending.started.set_exception(Unavailable("the process launcher died; try again"))
            if not pending.exit.done():
                pending.exit.set_result(ExitStatus(lost=True))
        logger.warning("the process launcher died with %d processes", len(lost))


class ExecLauncher(WarmLauncher):
    """Starts every command the ordinary way, with nothing imported in advance."""

    _forks_python = False

    def __init__(self) -> None:
        super().__init__()


def _kill_late(started: "asyncio.Future[Process]") -> None:
    """Nobody waits for it any more."""
    if not started.cancelled() and started.exception() is None:
        started.result().kill()


def _is_simple(argv: Sequence[str]) -> bool:
    """Tells whether it is `python -m M`, `python -c CODE` or `python SCRIPT`, without options of the interpreter."""
    if len(argv) < 2:
        return False
    if argv[1] in {"-m", "-c"}:
        return len(argv) > 2
    return not argv[1].startswith("-")
