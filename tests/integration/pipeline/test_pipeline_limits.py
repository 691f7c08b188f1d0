"""Tasks that misbehave, for real but with little: the service goes on, says what was wrong, and nothing is left."""

import contextlib
import os
import signal
import time

import grpc
import psutil
import pytest
import requests
from kfp import dsl
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2

SETTINGS = {
    "MAX_TASK_PROCESSES": "60",
    "MAX_TASK_DISK": "24Mi",
    "MAX_LOG_BYTES": "256Ki",
    "MAX_TASK_OPEN_FILES": "128",
    "TERMINATE_GRACE_SECONDS": "0.3",
    "MAX_PARALLEL_TASKS": "3",
    "CPUS": "2",
    "MEMORY": "8Gi",
}


@dsl.component
def misbehave(how: str) -> str:
    import os
    import signal
    import sys
    import time

    def escape():
        """Leaves the process group and the session, with no parent, and never ends."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(120)
            os._exit(0)

    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    elif how == "leave":
        escape()
        os._exit(7)
    elif how == "exit":
        sys.exit("enough of this")
    elif how == "fork bomb":
        for _ in range(300):
            if os.fork() == 0:
                time.sleep(120)
        time.sleep(120)
    elif how == "memory":
        held = [bytearray(b"x") * (1 << 20) for _ in range(300)]
        time.sleep(120 + len(held))
    elif how == "huge":
        bytearray(1 << 46)
    elif how == "orphan":
        escape()
    elif how == "signal to its parent":
        os.kill(os.getppid(), signal.SIGTERM)
    elif how == "close all":
        escape()
        os.closerange(0, 200)
        print("into nothing")
    elif how == "endless output":
        size = 0
        while os.fstat(1).st_size >= size:
            size = os.fstat(1).st_size
            print("tell " * 200)
            time.sleep(0.0005)  # else it comes to the largest file first
        print("that was the end")
    elif how == "delete the folder":
        import shutil

        shutil.rmtree(os.getcwd())
    elif how == "fill the disk":
        for number in range(10):
            with open(f"part-{number}", "wb") as file:
                file.write(os.urandom(1 << 20) * 4)
        time.sleep(120)
    elif how == "deep folders":
        for _ in range(3000):
            os.mkdir("down")
            os.chdir("down")
        os.chdir("/")
    elif how == "large file":
        with open("large", "wb") as file:
            for _ in range(30):
                file.write(bytes(1 << 20))
    elif how == "open files":
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(200)]
    return how


@dsl.pipeline(name="misbehaving")
def misbehaving(how: str):
    misbehave(how=how).set_memory_limit("120M")


@dsl.component
def fine(x: int = 1) -> int:
    return x


@dsl.pipeline(name="well-behaved")
def well_behaved():
    fine()


HOW = {
    "segfault": "was ended by SIGSEGV",
    "leave": "exited with code 7",
    "exit": "exited with code 1",
    "fork bomb": "had more processes and threads than its limit of 60",
    "memory": "used more memory than its limit of 114.4Mi (",
    "huge": "MemoryError",
    "orphan": "",
    "signal to its parent": "",
    "close all": None,
    "endless output": "",
    "delete the folder": None,
    "fill the disk": "wrote more to the disk than its limit of 24Mi (40Mi)",
    "deep folders": "",
    "large file": "File too large",
    "open files": "Too many open files",
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    with ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", tmp_path_factory.mktemp("limits"), SETTINGS) as service:
        yield service


@pytest.fixture(scope="module")
def limited_client(limited, connect):
    return connect(limited)


@pytest.fixture(scope="module")
def ended(limited_client, compile_pipeline):
    """All that misbehave, together, and how they ended."""
    spec = compile_pipeline(misbehaving)
    made = {how: limited_client.create(spec, {"how": how}).run_id for how in HOW}
    return {how: limited_client.wait(run_id, 60) for how, run_id in made.items()}


def descendants(service) -> list[psutil.Process]:
    """What has come of a service; one is its helper."""
    found = psutil.Process(service.pid).children(recursive=True)
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("how", HOW)
def test_what_is_said_of_a_task_that_misbehaves(ended, how):
    expected, run = HOW[how], ended[how]
    if expected is not None:
        assert run.state == (run_pb2.FAILED if expected else run_pb2.SUCCEEDED), run.error
        assert expected in run.error.message
    assert "Traceback" not in run.error.message


def test_nothing_is_left_of_them_and_the_service_goes_on(ended, limited, limited_client, compile_pipeline):
    helper = psutil.Process(limited.pid).children()
    assert [process.pid for process in descendants(limited)] == [helper[0].pid]
    assert limited_client.run(compile_pipeline(well_behaved)).state == run_pb2.SUCCEEDED
    left = [path for path in (limited.data_dir / "pipeline" / "runs").glob("*/*/*") if path.is_dir()]
    assert not left, "scratch folders"


def test_a_log_that_was_cut_has_its_beginning_and_its_end(ended, limited):
    run = ended["endless output"]
    task = run.run_details.task_details[0]
    url = f"{limited.http}/apis/v2beta1/runs/{run.run_id}/tasks/{task.task_id}/log"
    log = requests.get(url, timeout=10).text
    assert "dropped here: the log grew beyond 256Ki" in log and "that was the end" in log
    assert len(log) <= 300_000


@dsl.component
def kill_parent(folder: str):
    import os
    import signal

    with open(os.path.join(folder, "killed"), "a") as file:
        file.write("x")
    os.kill(os.getppid(), signal.SIGKILL)


@dsl.component
def stand_by(folder: str):
    import os
    import time

    with open(os.path.join(folder, "stood by"), "a") as file:
        file.write("x")
    while os.path.getsize(os.path.join(folder, "killed")) < 4:
        time.sleep(0.02)


@dsl.pipeline(name="killing-parents")
def killing_parents(folder: str):
    kill_parent(folder=folder)


@dsl.pipeline(name="standing-by")
def standing_by(folder: str):
    stand_by(folder=folder)


def test_a_task_that_kills_its_launcher_does_not_fail_others(limited_client, compile_pipeline, tmp_path):
    (tmp_path / "killed").touch()
    folder = {"folder": str(tmp_path)}
    other = limited_client.create(compile_pipeline(standing_by), folder).run_id
    wait_until((tmp_path / "stood by").exists)
    run_id = limited_client.create(compile_pipeline(killing_parents), folder).run_id
    assert limited_client.wait(other).state == run_pb2.SUCCEEDED
    assert 1 < len((tmp_path / "stood by").read_text()) < 10, "it was interrupted, and not for ever"
    limited_client.runs.TerminateRun(run_pb2.TerminateRunRequest(run_id=run_id))
    assert limited_client.wait(run_id).state in {run_pb2.CANCELED, run_pb2.FAILED}


@dsl.component
def hold_out(folder: str):
    import os
    import signal
    import subprocess
    import sys
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import os, time\nif os.fork(): os._exit(0)\nopen(str(os.getpid()), 'w')\ntime.sleep(120)"
    subprocess.run([sys.executable, "-c", code], cwd=folder, start_new_session=True, check=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(os.path.join(folder, str(os.getpid())), "w").close()
            time.sleep(120)
        os._exit(0)
    time.sleep(120)


@dsl.pipeline(name="holding-out")
def holding_out(folder: str):
    hold_out(folder=folder)


def orphans(folder) -> list[int]:
    wait_until(lambda: len(list(folder.iterdir())) == 2)
    return [int(path.name) for path in folder.iterdir()]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_terminate_ends_what_has_left_the_group(limited, limited_client, compile_pipeline, tmp_path):
    run_id = limited_client.create(compile_pipeline(holding_out), {"folder": str(tmp_path)}).run_id
    pids = orphans(tmp_path)
    limited_client.runs.TerminateRun(run_pb2.TerminateRunRequest(run_id=run_id))
    assert limited_client.wait(run_id).state == run_pb2.CANCELED
    assert not any(is_alive(pid) for pid in pids)


def test_what_a_killed_service_and_helper_left_is_found_when_the_run_goes_on(
    make_service, connect, compile_pipeline, tmp_path
):
    folder = tmp_path / "pids"
    folder.mkdir()
    service = make_service(LEASE_SECONDS="1", SCAN_SECONDS="0.2", TERMINATE_GRACE_SECONDS="0.3")
    client = connect(service)
    run_id = client.create(compile_pipeline(holding_out), {"folder": str(folder)}).run_id
    pids = orphans(folder)
    helper = psutil.Process(service.pid).children()[0]
    os.kill(service.pid, signal.SIGSTOP)  # so that it cannot clear up after its helper
    helper.kill()
    service.kill()
    assert all(is_alive(pid) for pid in pids), "they have escaped"
    for path in folder.iterdir():
        path.unlink()
    service.start()
    client.connect()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    later = orphans(folder)
    client.runs.TerminateRun(run_pb2.TerminateRunRequest(run_id=run_id))
    assert client.wait(run_id).state == run_pb2.CANCELED
    assert not any(is_alive(pid) for pid in later)


@dsl.component
def window() -> list:
    import os
    import time

    start = time.time()
    time.sleep(0.15)
    return [start, time.time(), len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS", "")]


@dsl.pipeline(name="asking")
def asking():
    window().set_cpu_request("1500m").set_display_name("a")
    window().set_cpu_request("1").set_cpu_limit("1").set_display_name("b")
    window().set_memory_request("5Gi").set_display_name("c")
    window().set_memory_request("5Gi").set_display_name("d")


def outputs_of(service, run) -> dict[str, list]:
    found = {}
    for task in run.run_details.task_details:
        url = f"{service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{task.task_id}/outputs"
        parameters = requests.get(url, timeout=10).json()["parameters"]
        if parameters:
            found[task.display_name] = parameters["Output"]
    return found


def test_requests_are_counted_against_the_machine(limited, limited_client, compile_pipeline):
    run = limited_client.run(compile_pipeline(asking, caching=False))
    assert run.state == run_pb2.SUCCEEDED, run.error
    found = outputs_of(limited, run)
    for one, other in (("a", "b"), ("c", "d")):
        first, second = sorted([found[one], found[other]])
        assert first[1] <= second[0], "together they ask for more than there is"
    assert found["b"][2:] == [1, "1"]


@dsl.pipeline(name="by-parameter")
def by_parameter(cpus: str, memory: str = "1Gi"):
    fine().set_cpu_request(cpus).set_memory_request(memory)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cpus": "64"}, "container.resources: asks for 64 CPUs, and this machine has 2 CPUs"),
        ({"cpus": "1", "memory": "1Ti"}, "container.resources: asks for 1024Gi of memory, and this machine has 8Gi"),
        ({"cpus": "many"}, "container.resources: resourceCpuRequest: 'many' is not a quantity"),
    ],
)
def test_requests_by_parameters_that_cannot_be_met_fail_the_task(limited_client, compile_pipeline, parameters, message):
    run = limited_client.run(compile_pipeline(by_parameter), parameters)
    assert run.state == run_pb2.FAILED and message in run.error.message


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"resourceCpuRequest": "3"}, "FAILED_PRECONDITION", "resources.resourceCpuRequest: asks for 3 CPUs"),
        ({"memoryRequest": 9.0}, "FAILED_PRECONDITION", "resources.memoryRequest: asks for 8.4Gi of memory"),
        ({"resourceMemoryLimit": "a lot"}, "INVALID_ARGUMENT", "'a lot' is not a quantity"),
        ({"cpuRequest": 2.0, "cpuLimit": 1.0}, "INVALID_ARGUMENT", "must not be more than the limit"),
    ],
)
def test_requests_that_cannot_be_met_are_refused_at_the_door(limited_client, compile_pipeline, fields, code, message):
    spec = compile_pipeline(well_behaved)
    spec["deploymentSpec"]["executors"]["exec-fine"]["container"]["resources"] = fields
    with pytest.raises(grpc.RpcError) as caught:
        limited_client.create(spec)
    assert caught.value.code().name == code
    assert message in caught.value.details()
