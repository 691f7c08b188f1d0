"""Limits of processes, and what they leave: each case is done for real, with little."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlmesh_kit.launch import ExecLauncher, ExitStatus, Limits, ProcessSpec, WarmLauncher, mark_of, sweep
from mlmesh_kit.proc import marked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is counted over several processes needs /proc")
MAKERS: dict[str, Callable[[], Any]] = {"exec": ExecLauncher, "warm": lambda: WarmLauncher(preload=("json",))}
MIB = 1 << 20

ORPHAN = """
import os, sys, time
def orphan():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            {do}
            open("pid.new", "w").write(str(os.getpid()))
            os.rename("pid.new", "pid")
            time.sleep(60)
        os._exit(0)
orphan()
while not os.path.exists("pid"):
    time.sleep(0.005)
"""
CLEAN_EXEC = 'os.execve(sys.executable, [sys.executable, "-c", PROGRAM], {})'
PROGRAM = "PROGRAM = \"import os, time; open('pid.new', 'w').write(str(os.getpid())); os.rename('pid.new', 'pid'); time.sleep(60)\"\n"  # noqa: E501


@pytest.fixture(params=sorted(MAKERS))
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return MAKERS[request.param]


def spec(folder: Path, code: str, *arguments: str, **more: Any) -> ProcessSpec:
    argv = [sys.executable, "-c", code, *arguments]
    return ProcessSpec(argv=argv, cwd=folder, env={"PATH": os.environ["PATH"]}, log_path=folder / "log", **more)


def run(launcher: Any, *specs: ProcessSpec) -> list[ExitStatus]:
    async def all_of_them() -> list[ExitStatus]:
        async with launcher:
            processes = [await launcher.start(one) for one in specs]
            found = await asyncio.gather(*(process.wait() for process in processes))
            last = replace(specs[0], argv=[sys.executable, "-c", "pass"], log_path=specs[0].cwd / "last.log")
            assert (await (await launcher.start(last)).wait()).ok, "the launcher goes on"
            return found

    return asyncio.run(all_of_them())


def run_one(make: Callable[[], Any], folder: Path, code: str, **limits: int) -> tuple[ExitStatus, str]:
    status = run(make(), spec(folder, code, limits=Limits(**limits)))[0]
    return status, (folder / "log").read_text(errors="replace")


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


GROW = "held = []\nwhile len(held) < 300: held.append(bytearray(b'x') * (1 << 20))\nimport time; time.sleep(30)"


def test_memory_beyond_the_limit_ends_it(make: Callable[[], Any], tmp_path: Path) -> None:
    status, _ = run_one(make, tmp_path, GROW, memory_bytes=100 * MIB)
    assert not status.ok and status.signal == signal.SIGKILL
    assert status.describe().startswith("used more memory than its limit of 100Mi (")


def test_memory_of_children_counts(tmp_path: Path) -> None:
    code = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {GROW!r}])\ntime.sleep(30)"
    status, _ = run_one(MAKERS["warm"], tmp_path, code, memory_bytes=100 * MIB)
    assert status.exceeded.startswith("used more memory")


def test_memory_that_is_shared_or_mapped_is_not_counted_twice(tmp_path: Path) -> None:
    code = """
import mmap, os, time
held = bytearray(b"x") * (60 << 20)
with open("file", "wb") as file: file.truncate(300 << 20)
with open("file", "rb") as file: mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(mapped[at] for at in range(0, len(mapped), 4096))
children = []
for _ in range(5):
    pid = os.fork()
    if pid == 0: time.sleep(0.4); os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
"""
    status, log = run_one(MAKERS["warm"], tmp_path, code, memory_bytes=150 * MIB)
    assert status.ok, (status, log)


def test_one_huge_allocation_is_refused_at_once(make: Callable[[], Any], tmp_path: Path) -> None:
    status, log = run_one(make, tmp_path, "bytearray(20 << 30)", memory_bytes=64 * MIB)
    assert status.code == 1 and "MemoryError" in log


def test_when_all_take_too_much_together_the_largest_goes(tmp_path: Path) -> None:
    code = "import sys, time\nheld = bytearray(b'x') * (int(sys.argv[1]) << 20)\ntime.sleep(float(sys.argv[2]))"
    launcher = WarmLauncher(total_memory_bytes=250 * MIB)
    small, large = run(launcher, spec(tmp_path, code, "60", "1"), spec(tmp_path, code, "300", "30"))
    assert small.ok and large.signal == signal.SIGKILL
    assert "this one the most" in large.describe()


BOMB = """
import os, signal, time
count = os.open("count", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def may_fork():
    os.write(count, b"x")
    return os.fstat(count).st_size < 2000
signal.alarm(20)
while may_fork():
    try:
        if os.fork() == 0:
            signal.alarm(20)
            {do}
    except OSError:  # the system refused
        time.sleep(0.01)
time.sleep(20)
"""


@pytest.mark.parametrize("do", ["pass", "os.setsid()"])
def test_a_fork_bomb_ends(make: Callable[[], Any], tmp_path: Path, do: str) -> None:
    mark = mark_of("fork bomb")
    status = run(make(), spec(tmp_path, BOMB.format(do=do), limits=Limits(processes=50, nice=5), mark=mark))[0]
    assert status.describe() == "had more processes and threads than its limit of 50"
    assert not marked([mark])
    assert (tmp_path / "count").stat().st_size < 2000, "it was stopped, and did not stop by itself"


@pytest.mark.parametrize(
    "code", [ORPHAN.format(do="pass"), PROGRAM + ORPHAN.format(do=CLEAN_EXEC)], ids=["forked", "without environment"]
)
@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), 9)", "os.close(1); os.close(2)"])
def test_what_leaves_the_group_ends_with_the_process(tmp_path: Path, code: str, end: str) -> None:
    status = run(WarmLauncher(), spec(tmp_path, f"{code}\n{end}"))[0]
    assert (status.code, status.signal) == ((None, 9) if "kill" in end else (0, None))
    assert gone(int((tmp_path / "pid").read_text()))


def test_terminate_ends_what_left_the_group(make: Callable[[], Any], tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ORPHAN.format(do="pass") + "\ntime.sleep(60)"
    )

    async def use() -> ExitStatus:
        async with make() as launcher:
            process = await launcher.start(spec(tmp_path, code))
            await asyncio.to_thread(wait_until, (tmp_path / "pid").exists)
            status: ExitStatus = await process.terminate(grace_seconds=0.2)
            return status

    assert asyncio.run(use()).signal == signal.SIGKILL
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    mark = mark_of("cancelled")

    async def use() -> None:
        async with WarmLauncher() as launcher:
            starting = asyncio.create_task(launcher.start(spec(tmp_path, code, mark=mark)))
            after = await launcher.start(spec(tmp_path, "import time; time.sleep(60)"))  # so the first was asked for
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await asyncio.to_thread(wait_until, lambda: not marked([mark]))
            assert not gone(after.pid)

    asyncio.run(use())


@pytest.mark.parametrize("do", ["pass", 'os.execv(sys.executable, [sys.executable, "-c", PROGRAM])'])
def test_a_helper_that_is_killed_leaves_no_orphan(tmp_path: Path, do: str) -> None:
    code = PROGRAM + ORPHAN.format(do=do) + "\ntime.sleep(60)"

    async def use() -> ExitStatus:
        async with WarmLauncher() as launcher:
            process = await launcher.start(spec(tmp_path, code))
            await asyncio.to_thread(wait_until, (tmp_path / "pid").exists)
            assert launcher.helper_pid is not None
            os.kill(launcher.helper_pid, signal.SIGKILL)
            status: ExitStatus = await process.wait()
            return status

    assert asyncio.run(use()).lost
    assert gone(int((tmp_path / "pid").read_text()))


def test_sweep_finds_by_the_mark_alone(tmp_path: Path) -> None:
    mark = mark_of("run/task/1")
    code = ORPHAN.format(do="pass") + "\ntime.sleep(60)"

    async def use() -> int:
        async with WarmLauncher() as launcher:
            process = await launcher.start(spec(tmp_path, code, mark=mark))
            await asyncio.to_thread(wait_until, (tmp_path / "pid").exists)
            assert sweep(None, None, mark_of("run/task/2")) == 0
            swept = await asyncio.to_thread(sweep, None, None, mark)
            await process.wait()
            return swept

    assert asyncio.run(use()) >= 2
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_log_that_grows_is_cut_in_the_middle(make: Callable[[], Any], tmp_path: Path) -> None:
    code = """
import os, sys
print("the beginning")
size = 0
while os.fstat(1).st_size >= size:
    size = os.fstat(1).st_size
    print("x" * 1000)
print("the end")
"""
    status, log = run_one(make, tmp_path, code, log_bytes=100_000)
    assert status.ok
    assert log.startswith("the beginning\n") and log.endswith("the end\n")
    assert log.count("bytes were dropped here: the log grew beyond 97.7Ki") == 1


@pytest.mark.parametrize("lines", [100, 101, 110, 120, 200, 5000])
def test_a_log_that_grew_at_once_keeps_its_beginning_and_its_end(tmp_path: Path, lines: int) -> None:
    code = f"import sys; sys.stdout.write(''.join(f'{{n:999}}\\n' for n in range({lines})))"
    status, log = run_one(MAKERS["warm"], tmp_path, code, log_bytes=100_000)
    assert status.ok and len(log) <= 102_000
    found = [int(line) for line in log.splitlines() if len(line) == 999]
    assert found[0] == 0 and found[-1] == lines - 1 and sorted(set(found)) == found
    assert ("dropped here" in log) == (lines > 100)


def test_limits_of_the_system(make: Callable[[], Any], tmp_path: Path) -> None:
    code = """
import errno, os, resource
print("core", resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NPROC)[0] < 60_000)
print("usual", os.sched_getscheduler(0) == os.SCHED_OTHER)
print("nice", os.nice(0), "oom", open("/proc/self/oom_score_adj").read().strip(), "cpus", len(os.sched_getaffinity(0)))
try:
    held = [open(os.devnull) for _ in range(100)]
except OSError as error:
    print("files", errno.errorcode[error.errno])
held = []
try:
    with open("big", "wb") as file:
        for _ in range(20): file.write(bytes(1 << 20)); file.flush()
except OSError as error:
    print("size", errno.errorcode[error.errno])
"""
    status, log = run_one(
        make, tmp_path, code, open_files=50, processes=500, file_bytes=4 * MIB, nice=3, oom_score=500, cpus=1
    )
    assert status.ok, log
    nice = os.nice(0) + 3
    assert log.splitlines() == [
        "core (0, 0) True",
        "usual True",
        f"nice {nice} oom 500 cpus 1",
        "files EMFILE",
        "size EFBIG",
    ]


def test_processes_are_bound_to_the_least_used_cpus(tmp_path: Path) -> None:
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip("there is one CPU")
    code = "import os, time; print(min(os.sched_getaffinity(0)), flush=True); time.sleep(0.3)"
    run(WarmLauncher(), *[spec(tmp_path, code, limits=Limits(cpus=1))] * len(cpus))
    assert {int(line) for line in (tmp_path / "log").read_text().split() if line.isdigit()} == cpus
