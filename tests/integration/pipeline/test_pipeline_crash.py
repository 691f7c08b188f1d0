"""What was answered survives kill -9; nothing that succeeded is done again; nothing is left running."""

import os
import time
from pathlib import Path

import psutil
from kfp import dsl
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2


@dsl.component
def mark(folder: str, name: str) -> str:
    import os

    with open(os.path.join(folder, name), "a") as file:
        file.write("x")
    return name


@dsl.component
def hold(folder: str, name: str) -> str:
    import os
    import subprocess
    import sys
    import time

    with open(os.path.join(folder, name), "a") as file:
        file.write("x")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(os.path.join(folder, f"{name}.pids"), "a") as file:
        file.write(f"{os.getpid()} {child.pid}\n")
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    child.kill()
    return name


@dsl.pipeline(name="held")
def held(folder: str):
    first = mark(folder=folder, name="first")
    middle = hold(folder=folder, name="middle").after(first)
    mark(folder=folder, name="last").after(middle)


def _wait(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _pids(folder: Path) -> list[int]:
    path = folder / "middle.pids"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def _gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def test_kill_9_in_mid_run(make_service, connect, compile_pipeline, by_name, tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    service = make_service(LEASE_SECONDS="2", SCAN_SECONDS="0.2")
    client = connect(service)
    run_id = client.create(compile_pipeline(held), {"folder": str(folder)}).run_id
    _wait(lambda: len(_pids(folder)) == 2)
    before = _pids(folder)
    service.kill()
    service.start()
    client.connect()
    _wait(lambda: len(_pids(folder)) == 4)
    _wait(lambda: _gone(before))
    (folder / "go").touch()
    run = client.wait(run_id)
    assert run.state == run_pb2.SUCCEEDED, run.error
    assert (folder / "first").read_text() == "x"
    assert (folder / "middle").read_text() == "xx"
    assert (folder / "last").read_text() == "x"
    middle = by_name(run)["hold"]
    assert list(middle.executor_detail.failed_main_jobs) == [f"{middle.task_id}/1"]
    assert middle.executor_detail.main_job == f"{middle.task_id}/2"
    assert [status.state for status in run.state_history].count(run_pb2.RUNNING) == 1


def test_a_stopped_service_leaves_the_run_to_the_next(make_service, connect, compile_pipeline, tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    service = make_service()
    client = connect(service)
    run_id = client.create(compile_pipeline(held), {"folder": str(folder)}).run_id
    _wait(lambda: len(_pids(folder)) == 2)
    before = _pids(folder)
    assert service.stop() == 0
    assert _gone(before)
    (folder / "go").touch()
    service.start()
    client.connect()
    run = client.wait(run_id)
    assert run.state == run_pb2.SUCCEEDED, run.error
    assert (folder / "first").read_text() == "x"


def test_terminate_kills_the_whole_group(make_service, connect, compile_pipeline, by_name, tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    client = connect(make_service(TERMINATE_GRACE_SECONDS="0.5"))
    run_id = client.create(compile_pipeline(held), {"folder": str(folder)}).run_id
    _wait(lambda: len(_pids(folder)) == 2)
    client.runs.TerminateRun(run_pb2.TerminateRunRequest(run_id=run_id))
    run = client.wait(run_id)
    assert run.state == run_pb2.CANCELED
    assert [run_pb2.RuntimeState.Name(status.state) for status in run.state_history][-2:] == ["CANCELING", "CANCELED"]
    _wait(lambda: _gone(_pids(folder)))
    tasks = by_name(run)
    assert tasks["hold"].state == run_pb2.CANCELED
    assert not (folder / "last").exists()
    client.runs.RetryRun(run_pb2.RetryRunRequest(run_id=run_id))
    (folder / "go").touch()
    again = client.wait(run_id)
    assert again.state == run_pb2.SUCCEEDED, again.error
    assert (folder / "first").read_text() == "x"


def test_deleting_an_active_run_ends_it_first(make_service, connect, compile_pipeline, tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    client = connect(make_service(TERMINATE_GRACE_SECONDS="0.5"))
    run_id = client.create(compile_pipeline(held), {"folder": str(folder)}).run_id
    _wait(lambda: len(_pids(folder)) == 2)
    client.runs.DeleteRun(run_pb2.DeleteRunRequest(run_id=run_id))
    assert _gone(_pids(folder))
    assert client.runs.ListRuns(run_pb2.ListRunsRequest()).total_size == 0
    assert not (client.service.data_dir / "pipeline/runs" / run_id).exists()


@dsl.pipeline(name="many")
def many(folder: str):
    with dsl.ParallelFor([f"n{number}" for number in range(12)]) as name:
        mark(folder=folder, name=name).set_caching_options(False)


def test_two_services_on_one_database_run_each_task_once(make_service, connect, compile_pipeline, tmp_path):
    spec = compile_pipeline(many)
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'shared.db'}",
        "ARTIFACT_ROOT": f"file://{tmp_path / 'shared-artifacts'}",
        "SCAN_SECONDS": "0.1",
    }
    clients = [connect(make_service(tmp_path / name, **settings)) for name in ("one", "two")]
    runs = []
    for number in range(6):
        folder = tmp_path / f"marks-{number}"
        folder.mkdir()
        runs.append((folder, clients[number % 2].create(spec, {"folder": str(folder)}).run_id))
    for folder, run_id in runs:
        run = clients[0].wait(run_id)
        assert run.state == run_pb2.SUCCEEDED, run.error
        assert {path.name: path.read_text() for path in folder.iterdir()} == {f"n{n}": "x" for n in range(12)}


def test_a_dead_services_run_goes_to_another(make_service, connect, compile_pipeline, tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'shared.db'}",
        "ARTIFACT_ROOT": f"file://{tmp_path / 'shared-artifacts'}",
        "SCAN_SECONDS": "0.2",
        "LEASE_SECONDS": "1.5",
    }
    first = make_service(tmp_path / "one", **settings)
    run_id = connect(first).create(compile_pipeline(held), {"folder": str(folder)}).run_id
    _wait(lambda: len(_pids(folder)) == 2)
    second = connect(make_service(tmp_path / "two", **settings))
    before = _pids(folder)
    first.kill()
    _wait(lambda: len(_pids(folder)) == 4)
    assert _gone(before)
    (folder / "go").touch()
    assert second.wait(run_id).state == run_pb2.SUCCEEDED
    assert (folder / "first").read_text() == "x"


def test_nothing_is_left_of_a_run(make_service, connect, compile_pipeline, tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    client = connect(make_service())
    assert client.run(compile_pipeline(many), {"folder": str(folder)}).state == run_pb2.SUCCEEDED
    scratch = [path for path in (client.service.data_dir / "pipeline/runs").rglob("*") if path.is_file()]
    assert scratch
    assert {path.suffix for path in scratch} == {".log"}
    assert os.listdir(folder)


@dsl.component
def fail(folder: str):
    import os

    with open(os.path.join(folder, "tries"), "a") as file:
        file.write("x")
    raise ValueError("never")


@dsl.pipeline(name="tried-again")
def tried_again(folder: str):
    fail(folder=folder).set_retry(num_retries=2, backoff_duration="1s", backoff_factor=1)


def test_retries_before_kill_9_count(make_service, connect, compile_pipeline, by_name, tmp_path):
    service = make_service(LEASE_SECONDS="2", SCAN_SECONDS="0.2")
    client = connect(service)
    run_id = client.create(compile_pipeline(tried_again), {"folder": str(tmp_path)}).run_id

    def failed() -> int:
        tasks = by_name(client.get(run_id))
        return len(tasks["fail"].executor_detail.failed_main_jobs) if "fail" in tasks else 0

    _wait(lambda: failed() == 1)
    service.kill()
    service.start()
    client.connect()
    run = client.wait(run_id)
    assert run.state == run_pb2.FAILED
    assert run.error.message.endswith("ValueError: never (attempt 3 of 3)")
    assert (tmp_path / "tries").read_text() == "xxx"
