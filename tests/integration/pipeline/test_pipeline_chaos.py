"""Runs while the service and the process that starts their tasks are killed: all end right, once, and leave nothing."""

import os
import random
import time
from pathlib import Path
from typing import Any

import psutil
from kfp import dsl
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2

RUNS, WIDTH, KILLS = 8, 6, 6


@dsl.component
def mark(folder: str, name: str) -> str:
    import os
    import time

    time.sleep(0.05)
    with open(os.path.join(folder, name), "a") as file:
        file.write("x")
    return name


@dsl.pipeline(name="chaos")
def chaos(folder: str):
    first = mark(folder=folder, name="first").set_caching_options(False)
    with dsl.ParallelFor([f"n{number}" for number in range(WIDTH)]) as name:
        mark(folder=folder, name=name).set_caching_options(False).after(first)
    last = mark(folder=folder, name="last").set_caching_options(False)
    last.after(first)


def _launchers(service: Any) -> list[psutil.Process]:
    """The processes that tasks are forked from."""
    return [one for one in psutil.Process(service.pid).children() if one.is_running()]


def _with_variable(name: str, value: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _ended(client: Any) -> int:
    runs = client.runs.ListRuns(run_pb2.ListRunsRequest(page_size=100)).runs
    return sum(run.state in {run_pb2.SUCCEEDED, run_pb2.FAILED} for run in runs)


def test_all_ends_right(make_service: Any, connect: Any, compile_pipeline: Any, tmp_path: Path) -> None:
    chance = random.Random(20241124)
    service = make_service(LEASE_SECONDS="2", SCAN_SECONDS="0.2")
    client = connect(service)
    spec = compile_pipeline(chaos)
    folders = {}
    for number in range(RUNS):
        folder = tmp_path / f"marks-{number}"
        folder.mkdir()
        folders[client.create(spec, {"folder": str(folder)}).run_id] = folder
    for number in range(KILLS):
        marks = sum(len(os.listdir(folder)) for folder in folders.values())
        wanted = min(marks + chance.randint(1, 6), RUNS * (WIDTH + 2))
        deadline = time.monotonic() + 60
        while sum(len(os.listdir(folder)) for folder in folders.values()) < wanted:
            assert time.monotonic() < deadline, "nothing goes on"
            time.sleep(0.01)
        if number % 2:
            for launcher in _launchers(service):
                launcher.kill()
        else:
            service.kill()
            service.start()
            client.connect()
    deadline = time.monotonic() + 120
    while _ended(client) < RUNS:
        assert time.monotonic() < deadline, service.log_path.read_text()[-3000:]
        time.sleep(0.1)
    for run_id, folder in folders.items():
        run = client.get(run_id)
        assert run.state == run_pb2.SUCCEEDED, run.error
        attempts: dict[str, int] = {}
        for task in run.run_details.task_details:
            jobs = [*task.executor_detail.failed_main_jobs, *filter(None, [task.executor_detail.main_job])]
            if jobs:
                attempts[task.task_id] = len(jobs)
        assert len(attempts) == WIDTH + 2
        written = {path.name: len(path.read_text()) for path in folder.iterdir()}
        assert set(written) == {"first", "last", *(f"n{number}" for number in range(WIDTH))}
        # A task that was killed after it had written, and before that was known, has written again: it says so.
        assert sum(written.values()) <= sum(attempts.values())
        assert not _with_variable("MLMESH_RUN_ID", run_id)
    left = [path for path in (service.data_dir / "pipeline" / "runs").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".log"}, left
    assert service.stop() == 0
