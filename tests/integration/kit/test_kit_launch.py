"""Starting processes, the ordinary way and warm: how they end is told, and nothing of them is left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlmesh_kit.launch import ExecLauncher, ExitStatus, Process, ProcessSpec, WarmLauncher, sweep

MAKERS: dict[str, Callable[[], Any]] = {
    "exec": ExecLauncher,
    "warm": lambda: WarmLauncher(preload=("json", "no_such_module_anywhere")),
}


@pytest.fixture(params=sorted(MAKERS))
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return MAKERS[request.param]


def spec(folder: Path, code: str, *arguments: str, **more: Any) -> ProcessSpec:
    env = {"PATH": os.environ["PATH"], "SEEN": "yes"}
    argv = [sys.executable, "-c", code, *arguments]
    return ProcessSpec(argv=argv, cwd=folder, env=env, log_path=folder / "log", **more)


def with_launcher(make: Callable[[], Any], use: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with make() as launcher:
            return await use(launcher)

    return asyncio.run(run())


def run_one(make: Callable[[], Any], one: ProcessSpec) -> ExitStatus:
    async def use(launcher: Any) -> ExitStatus:
        process = await launcher.start(one)
        status: ExitStatus = await process.wait()
        return status

    found: ExitStatus = with_launcher(make, use)
    return found


def test_output_arguments_environment_and_folder(make: Callable[[], Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVICE", "hush")
    code = "import os, sys; print(os.getcwd(), sys.argv[1:], dict(os.environ)); print('bad', file=sys.stderr)"
    status = run_one(make, spec(tmp_path, code, "a b", "ü"))
    assert status.ok and status.max_rss_bytes > 1_000_000
    log = (tmp_path / "log").read_text()
    assert str(tmp_path) in log and "['a b', 'ü']" in log and "'SEEN': 'yes'" in log and "bad" in log
    assert "hush" not in log, "nothing is inherited"


@pytest.mark.parametrize(
    ("code", "exit_code", "number"),
    [
        ("raise SystemExit(7)", 7, None),
        ("raise ValueError('boom')", 1, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, signal.SIGKILL),
        ("import ctypes; ctypes.string_at(0)", None, signal.SIGSEGV),
        ("import os; os._exit(3)", 3, None),
        ("print('no end of line', end='')", 0, None),
    ],
)
def test_how_it_ended(
    make: Callable[[], Any], tmp_path: Path, code: str, exit_code: int | None, number: int | None
) -> None:
    status = run_one(make, spec(tmp_path, code))
    assert (status.code, status.signal) == (exit_code, number)
    assert status.ok == (exit_code == 0) and status.describe()


def test_a_traceback_goes_to_the_log(make: Callable[[], Any], tmp_path: Path) -> None:
    run_one(make, spec(tmp_path, "def f():\n    raise ValueError('boom')\nf()"))
    assert "ValueError: boom" in (tmp_path / "log").read_text()


TREE = (
    "import subprocess, sys, time; "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "open(sys.argv[1], 'w').close(); time.sleep(600)"
)


def group_of(pid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


async def started(launcher: Any, folder: Path, **more: Any) -> Process:
    process: Process = await launcher.start(spec(folder, TREE, str(folder / "up"), **more))
    async with asyncio.timeout(30):
        while not (folder / "up").exists():  # noqa: ASYNC110 - written by another process
            await asyncio.sleep(0.01)
    assert len(group_of(process.pid)) == 2
    return process


def test_a_timeout_ends_the_whole_group(make: Callable[[], Any], tmp_path: Path) -> None:
    async def use(launcher: Any) -> tuple[ExitStatus, int]:
        process = await started(launcher, tmp_path, timeout_seconds=0.3)
        return await process.wait(), process.pid

    status, pid = with_launcher(make, use)
    assert status.timed_out and not status.ok
    assert gone(pid)


def test_terminate_ends_the_whole_group(make: Callable[[], Any], tmp_path: Path) -> None:
    async def use(launcher: Any) -> tuple[ExitStatus, int]:
        process = await started(launcher, tmp_path)
        return await process.terminate(grace_seconds=5), process.pid

    status, pid = with_launcher(make, use)
    assert status.signal == signal.SIGTERM and gone(pid)


def test_terminate_is_heard_by_a_process_that_has_only_just_begun(make: Callable[[], Any], tmp_path: Path) -> None:
    async def use(launcher: Any) -> list[ExitStatus]:
        async def one() -> ExitStatus:
            process = await launcher.start(spec(tmp_path, "import time; time.sleep(60)"))
            status: ExitStatus = await process.terminate(grace_seconds=8)
            return status

        return await asyncio.gather(*(one() for _ in range(30)))

    assert {status.signal for status in with_launcher(make, use)} == {signal.SIGTERM}


def test_leaving_the_launcher_ends_what_still_runs(make: Callable[[], Any], tmp_path: Path) -> None:
    async def use(launcher: Any) -> int:
        return (await started(launcher, tmp_path)).pid

    assert gone(with_launcher(make, use))


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while group_of(pid):
        assert time.monotonic() < deadline, group_of(pid)
        time.sleep(0.02)
    return True


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


SERVICE = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_kit_launch import MAKERS, started

async def main():
    async with MAKERS[sys.argv[1]]() as launcher:
        process = await started(launcher, Path(sys.argv[2]))
        print(process.pid, process.started, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_service_that_is_killed_leaves_only_what_sweep_clears(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVICE, kind, str(tmp_path), str(Path(__file__).parent)]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    pid, since = service.stdout.readline().split()
    service.kill()
    service.wait()
    # The process itself dies with its parent; a child of its own may live on, until the next start sweeps.
    deadline = time.monotonic() + 20
    while lives(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sweep(int(pid), float(since))
    assert gone(int(pid))


def test_sweep_leaves_others_alone(tmp_path: Path) -> None:
    """A process id that was given to another process since."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        assert sweep(other.pid, time.time() - 3600) == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_command_that_does_not_exist(make: Callable[[], Any], tmp_path: Path) -> None:
    one = ProcessSpec(argv=["/no/such/command"], cwd=tmp_path, env={}, log_path=tmp_path / "log")

    async def use(launcher: Any) -> ExitStatus:
        process = await launcher.start(one)
        status: ExitStatus = await process.wait()
        return status

    status = with_launcher(make, use)
    assert status.code == 127, "as a shell says it"
    assert "/no/such/command" in (tmp_path / "log").read_text()


def test_warm_starts_share_what_was_preloaded(tmp_path: Path) -> None:
    code = "import sys; print('preloaded' if 'xml.dom.minidom' in sys.modules else 'cold')"
    status = run_one(lambda: WarmLauncher(preload=("xml.dom.minidom",)), spec(tmp_path, code))
    assert status.ok and (tmp_path / "log").read_text().strip() == "preloaded"


def test_a_preloaded_module_is_run_without_a_warning(tmp_path: Path) -> None:
    one = ProcessSpec([sys.executable, "-m", "json.tool", os.devnull], tmp_path, dict(os.environ), tmp_path / "log")
    status = run_one(lambda: WarmLauncher(preload=("json.tool",)), one)
    log = (tmp_path / "log").read_text()
    assert status.code == 1 and log.startswith("Expecting value") and "RuntimeWarning" not in log


def test_many_at_once(make: Callable[[], Any], tmp_path: Path) -> None:
    async def use(launcher: Any) -> list[ExitStatus]:
        async def one(number: int) -> ExitStatus:
            folder = tmp_path / str(number)
            folder.mkdir()
            process = await launcher.start(spec(folder, f"raise SystemExit({number})"))
            status: ExitStatus = await process.wait()
            return status

        return await asyncio.gather(*(one(number) for number in range(20)))

    assert [status.code for status in with_launcher(make, use)] == list(range(20))
