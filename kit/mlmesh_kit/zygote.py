"""The helper process that starts all others: small, single-threaded, with modules imported in advance.

Run as `python -m mlmesh_kit.zygote SOCKET_FD TOTAL_MEMORY MODULE...`. Messages are JSON with a length of 4 bytes before
it. In: `{"id", "argv", "cwd", "env", "log", "limits", "mark", "warm"}` (limits: see `launch.Limits.message`). Out:
`{"id", "pid", "started"}`, then `{"id", "code", "signal", "cpu", "rss", "exceeded"}`; or `{"id", "error"}`. An end is
told when all that descends from the process has ended, too. When the socket closes, the service is gone: all that still
lives is killed. Nothing of the service is imported here: what is, every process carries.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import mmap
import os
import resource
import runpy
import selectors
import signal
import socket
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

import psutil

from mlmesh_kit import proc
from mlmesh_kit.watchdog import Child, Watchdog

_LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_NAME_BYTES = 15
_NOT_STARTED = 127
_MARK_BYTES = 32
_SLOTS = 4096
_ORPHAN_SECONDS = 5.0
_DATA_ROOM = 1 << 30
_HELD = {signal.SIGINT, signal.SIGTERM}


class Zygote:
    """The loop: requests in, processes forked, their ends reported.

    Args:
        channel: The service's end is the other one.
        total_memory: Bytes that all processes together may take; 0: no limit.
    """

    def __init__(self, channel: socket.socket, total_memory: int) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._running: dict[int, Child] = {}
        self._watchdog = Watchdog(self._running, total_memory)
        self._buffer = b""
        self._mark = proc.address_of_mark()
        # Shared with the forks: a process that has no children when it ends says so, and spares us a look at /proc.
        self._left_nothing = mmap.mmap(-1, _SLOTS)
        self._slots = list(range(_SLOTS))
        self._bound: Counter[int] = Counter()
        self._cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def serve(self) -> None:
        """Serves until the service goes away."""
        wake_in, wake_out = socket.socketpair()
        for end in (wake_in, wake_out, self._channel):
            end.setblocking(False)
        signal.set_wakeup_fd(wake_in.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM):  # the service decides when we end, by closing the socket
            signal.signal(number, signal.SIG_IGN)
        _go_first()
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(wake_out, selectors.EVENT_READ)
            self._close_in_child: list[Any] = [self._channel, wake_in, wake_out, selector]
            while True:
                for key, _ in selector.select(self._watchdog.wait_seconds()):
                    if key.fileobj is wake_out:
                        with contextlib.suppress(BlockingIOError):
                            wake_out.recv(4096)
                    elif not self._receive():
                        return
                self._watchdog.look()
                self._reap()

    def kill_all(self) -> None:
        """Kills all that still lives."""
        for pid in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._running.clear()  # so that all are orphans
        self._watchdog.end_orphans(_ORPHAN_SECONDS)

    def _receive(self) -> bool:
        try:
            chunk = self._channel.recv(1 << 20)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not chunk:
            return False
        self._buffer += chunk
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if len(self._buffer) < _LENGTH.size + length:
                break
            message = json.loads(self._buffer[_LENGTH.size : _LENGTH.size + length])
            self._buffer = self._buffer[_LENGTH.size + length :]
            self._start(message)
        return True

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        self._channel.setblocking(True)
        try:
            self._channel.sendall(_LENGTH.pack(len(data)) + data)
        except OSError:
            return  # the service is gone; the next recv says so
        finally:
            self._channel.setblocking(False)

    def _start(self, message: dict[str, Any]) -> None:
        try:
            log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._send({"id": message["id"], "error": f"cannot open the log: {error.strerror}"})
            return
        child = Child(message["id"], message["limits"], log, cpus=self._choose_cpus(message["limits"].get("cpus", 0)))
        if message["warm"] and self._slots:
            child.slot = self._slots.pop()
            self._left_nothing[child.slot] = 0
        try:
            pid = _fork()
        except OSError as error:
            self._forget(child)
            self._send({"id": message["id"], "error": f"cannot start a process: {error.strerror}"})
            return
        if pid == 0:
            self._become(message, child)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # the child does so too; whoever comes first
        self._running[pid] = child
        try:
            started = psutil.Process(pid).create_time()
        except psutil.Error:
            started = 0.0
        self._send({"id": message["id"], "pid": pid, "started": started})

    def _forget(self, child: Child) -> None:
        os.close(child.log)
        self._bound.subtract(child.cpus)
        if child.slot >= 0:
            self._slots.append(child.slot)

    def _choose_cpus(self, count: int) -> tuple[int, ...]:
        """Gives the CPUs that fewest are bound to; () if it may use all."""
        if not 0 < count < len(self._cpus):
            return ()
        chosen = tuple(sorted(self._cpus, key=lambda cpu: self._bound[cpu])[:count])
        self._bound.update(chosen)
        return chosen

    def _reap(self) -> None:
        ended = []
        while self._running:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            child = self._running.pop(pid, None)
            if child is not None:  # else it had lost its parent
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # what it left behind
                ended.append((child, status, usage))
        if any(child.slot < 0 or not self._left_nothing[child.slot] for child, _, _ in ended):
            self._watchdog.end_orphans(_ORPHAN_SECONDS)
        for child, status, usage in ended:
            self._watchdog.trim_log(child, ended=True)
            self._forget(child)
            self._tell(child, status, usage)

    def _tell(self, child: Child, status: int, usage: resource.struct_rusage) -> None:
        ended = os.waitstatus_to_exitcode(status)
        rss_unit = 1 if sys.platform == "darwin" else 1024
        self._send(
            {
                "id": child.number,
                "code": ended if ended >= 0 else None,
                "signal": -ended if ended < 0 else None,
                "cpu": usage.ru_utime + usage.ru_stime,
                "rss": usage.ru_maxrss * rss_unit,
                "exceeded": child.exceeded,
            }
        )

    def _become(self, message: dict[str, Any], child: Child) -> NoReturn:
        """In the child: turns into the command; never returns."""
        code = _NOT_STARTED
        try:
            os.setpgid(0, 0)
            _die_with_parent(self._pid)
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
            if self._mark:
                ctypes.memmove(self._mark, message["mark"].encode(), _MARK_BYTES)
            _set_name(message["argv"])
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            if message["warm"]:  # as Python has it
                signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
            for end in self._close_in_child:
                end.close()
            for other in self._running.values():
                os.close(other.log)
            _redirect(child.log)
            os.chdir(message["cwd"])
            os.environ.clear()
            os.environ.update(message["env"])
            os.environ[proc.MARK] = message["mark"]
            _limit(message["limits"], child.cpus)
            code = _run_python(message["argv"]) if message["warm"] else _exec(message["argv"])
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            with contextlib.suppress(BaseException):
                sys.stderr.flush()
            if child.slot >= 0 and not _has_children():
                self._left_nothing[child.slot] = 1
            os._exit(code)


def _fork() -> int:
    """Forks; the child begins with `_HELD` held back: before they are deadly to it again, they would be lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    return pid


def _prctl(option: int, value: Any) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _die_with_parent(parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(_NOT_STARTED)


def _go_first() -> None:
    """Lets this process run before those that it watches, that a fork bomb cannot keep it from the CPU.

    Needs privileges; without them there is RLIMIT_NPROC.
    """
    if hasattr(os, "SCHED_RESET_ON_FORK"):  # what is forked is back to normal
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _set_name(argv: list[str]) -> None:
    """Gives the process its command's name in `ps` and `top`, where all forks would have the helper's."""
    name = argv[2] if argv[1:2] == ["-m"] and len(argv) > 2 else os.path.basename(argv[1 if len(argv) > 1 else 0])
    _prctl(_PR_SET_NAME, name.encode()[:_NAME_BYTES])


def _redirect(out: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _limit(limits: Mapping[str, int], cpus: tuple[int, ...]) -> None:
    if not limits:
        return
    _lower(resource.RLIMIT_CORE, 0)
    if memory := limits.get("memory"):
        _lower(resource.RLIMIT_DATA, 2 * memory + _DATA_ROOM)
    if processes := limits.get("processes"):
        # It counts for all that the user runs, so it is no limit of one task; but it is what stops a fork bomb that
        # outruns the watch. Root has none.
        _lower(resource.RLIMIT_NPROC, proc.threads_of_all() + 2 * processes)
    if files := limits.get("files"):
        _lower(resource.RLIMIT_NOFILE, files)
    if size := limits.get("file_bytes"):
        _lower(resource.RLIMIT_FSIZE, size)
    if nice := limits.get("nice"):
        os.nice(nice)
    if cpus:
        os.sched_setaffinity(0, cpus)
    if oom := limits.get("oom"):
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(oom))


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _exec(argv: list[str]) -> int:
    try:
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 126 if isinstance(error, PermissionError) else _NOT_STARTED


def _run_python(argv: list[str]) -> int:
    """Does what `python` does with `-m`, `-c` or a script; gives the exit code."""
    import atexit
    import random

    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    extra = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [path for path in extra if path not in sys.path]
    sys.modules.pop("__main__", None)
    code = 0
    try:
        _run_main(argv)
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException:
        code = 1
        kind, value, trace = sys.exc_info()
        frames = trace
        while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
            frames = frames.tb_next
        with contextlib.suppress(BaseException):  # standard error may be closed, or full
            traceback.print_exception(kind, value, frames or trace)
    finally:
        import threading

        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads as the interpreter does
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
    return code


def _run_main(argv: list[str]) -> None:
    kind = argv[1]
    if kind == "-m":
        sys.argv = [argv[2], *argv[3:]]
        sys.path.insert(0, os.getcwd())
        if not hasattr(sys.modules.get(argv[2]), "__path__"):
            sys.modules.pop(argv[2], None)  # preloaded: runpy would warn of it in each log
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        import types

        sys.argv = ["-c", *argv[3:]]
        sys.path.insert(0, "")
        main = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = main
        exec(compile(argv[2], "<string>", "exec"), main.__dict__)  # noqa: S102
    else:
        sys.argv = argv[1:]
        runpy.run_path(kind, run_name="__main__")


def _is_ours(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen runpy")


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)  # noqa: T201
    return 1


def main() -> None:
    """Imports the modules named and serves."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[3:]:
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"zygote: cannot import {name}: {error}", file=sys.stderr)  # noqa: T201
    gc.collect()
    gc.freeze()
    zygote = Zygote(channel, int(sys.argv[2]))
    try:
        zygote.serve()
    finally:
        zygote.kill_all()
        os._exit(0)  # not through atexit: what was imported may have registered anything


if __name__ == "__main__":
    main()
