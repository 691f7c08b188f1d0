"""A process of our own beside the router: started by the kit's launcher, spoken to over a unix socket.

Frames: 4 bytes of length, 1 of kind, then so many bytes less one. What they hold is said by who uses them.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mlmesh_kit.errors import Unavailable
from mlmesh_kit.launch import Launcher, Limits, Process, ProcessSpec, WarmLauncher

START_SECONDS = 60.0
MAX_FRAME = 1 << 30
_KILL_SECONDS = 5.0
_HIGH_WATER = 1 << 20
_HEAD = struct.Struct(">IB")


def frame(kind: int, *parts: bytes) -> list[bytes]:
    """Gives a frame in parts that need not be joined."""
    return [_HEAD.pack(1 + sum(map(len, parts)), kind), *parts]


class FrameProtocol(asyncio.Protocol):
    """One end of the socket.

    Args:
        received: Is given each frame's kind and content.
        lost: Is called once when the other end is gone.
    """

    def __init__(self, received: Callable[[int, bytes], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.connected = asyncio.Event()
        self.is_writable = True
        self.writable: Callable[[], None] = _nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.connected.set()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._buffer, start)
            if not 1 <= length <= MAX_FRAME:
                self.close()
                return
            end = start + _HEAD.size - 1 + length
            if len(self._buffer) < end:
                break
            content = bytes(memoryview(self._buffer)[start + _HEAD.size : end])
            start = end
            self._received(kind, content)
        del self._buffer[:start]

    def pause_writing(self) -> None:
        """See asyncio."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """See asyncio."""
        self.is_writable = True
        self.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        self._lost()

    def send(self, parts: Sequence[bytes]) -> None:
        """Sends frames, or nothing if the other end is gone."""
        if self._transport is not None:
            self._transport.writelines(parts)

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.abort()


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Companion:
    """A process that is connected.

    Attributes:
        process: Its life.
        protocol: Our end of the socket.
    """

    process: Process
    protocol: FrameProtocol

    async def kill(self) -> None:
        """Ends it at once, and waits for that."""
        self.process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                await self.process.wait()


PASSED_ON = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONPATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ", "USER",
    "VIRTUAL_ENV",
)  # fmt: skip
"""Variables of the router's environment that a companion gets."""
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class CompanionLauncher(WarmLauncher):
    """The launcher of companions of one kind; its helper starts with the first of them.

    They are a session of their own, and it stands back as a whole: where Linux shares CPUs out among sessions
    (`sched_autogroup`), a process's own niceness counts only within its session.

    Args:
        modules: What they run, imported in advance.
    """

    def __init__(self, *modules: str) -> None:
        super().__init__(modules, env={**os.environ, **dict.fromkeys(_THREADS, "1")})
        self._told = 0

    async def start(self, spec: ProcessSpec) -> Process:
        """See Launcher."""
        process = await super().start(spec)
        helper = self.helper_pid
        if spec.limits.nice and helper is not None and helper != self._told:
            self._told = helper
            with contextlib.suppress(OSError), open(f"/proc/{helper}/autogroup", "w") as group:  # noqa: ASYNC230
                group.write(str(spec.limits.nice))
        return process


async def start_companion(
    launcher: Launcher,
    module: str,
    protocol: FrameProtocol,
    folder: Path,
    limits: Limits,
    *,
    secrets: str = "",
) -> Companion:
    """Starts `python -m MODULE SOCKET` and waits until it has connected.

    Args:
        launcher: Forks it.
        module: What it runs.
        protocol: Our end.
        folder: Its working directory, and where its log goes.
        limits: What it may take.
        secrets: Beginning of the names of variables that it gets beside those of PASSED_ON; empty: none. What runs a
            user's code gets none.

    Raises:
        Unavailable: It could not be started, or ended before it connected.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240
    # Paths of sockets are short by law (108 bytes), those of data directories are not. The folder is ours alone.
    private = Path(tempfile.mkdtemp(prefix="mlmesh-"))
    server: asyncio.Server | None = None
    process: Process | None = None
    try:
        path = private / "s"
        server = await asyncio.get_running_loop().create_unix_server(lambda: protocol, str(path), backlog=1)
        process = await launcher.start(
            ProcessSpec(
                argv=["python", "-m", module, str(path)],
                cwd=folder,
                env={
                    name: value
                    for name, value in os.environ.items()
                    if name in PASSED_ON or (secrets and name.startswith(secrets))
                },
                log_path=folder / f"{module.rsplit('.', 1)[-1]}.log",
                limits=limits,
                name=module,
            )
        )
        await _connected(process, protocol, module)
        return Companion(process, protocol)
    except BaseException:
        if process is not None:
            process.kill()
        raise
    finally:
        if server is not None:
            server.close()
        shutil.rmtree(private, ignore_errors=True)


async def _connected(process: Process, protocol: FrameProtocol, module: str) -> None:
    ended = asyncio.ensure_future(process.wait())
    connected = asyncio.ensure_future(protocol.connected.wait())
    try:
        async with asyncio.timeout(START_SECONDS):
            await asyncio.wait([ended, connected], return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError as error:
        raise Unavailable(f"{module} did not connect in time") from error
    finally:
        for waiting in (ended, connected):
            waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connected
    if not protocol.connected.is_set():
        raise Unavailable(f"{module} ended before it connected; its log says why")


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """Reads a frame, for a process that does one thing at a time.

    Raises:
        EOFError: The other end is gone.
    """
    length, kind = _HEAD.unpack(_read(connection, _HEAD.size))
    return kind, _read(connection, length - 1)


def send_frame(connection: socket.socket, kind: int, *parts: bytes) -> None:
    """Sends a frame; see `read_frame`."""
    connection.sendall(b"".join(frame(kind, *parts)))


def _read(connection: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = connection.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return bytes(data)
