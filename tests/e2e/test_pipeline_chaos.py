"""Runs while the service, the process that starts their tasks, and Envoy are killed at random: all end right, once, and
leave nothing. `make chaos` is the same with 50 runs of 20 tasks and 20 kills; this is the small one.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from kfp import compiler, dsl
from support.mesh import RunningMesh

FULL = os.environ.get("MLMESH_CHAOS") == "full"
RUNS, WIDTH, KILLS = (50, 18, 20) if FULL else (8, 6, 6)
TASKS = WIDTH + 2
SECONDS = 900 if FULL else 120
API = "/apis/v2beta1"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(SECONDS + 120)]


@dsl.component
def mark(folder: str, name: str) -> str:
    from time import sleep

    sleep(0.05)
    with open(f"{folder}/{name}", "a") as file:
        file.write("x")
    return name


@dsl.pipeline(name="chaos")
def chaos(folder: str):
    first = mark(folder=folder, name="first").set_caching_options(False)
    with dsl.ParallelFor([f"n{number}" for number in range(WIDTH)]) as name:
        mark(folder=folder, name=name).set_caching_options(False).after(first)
    last = mark(folder=folder, name="last").set_caching_options(False)
    last.after(first)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import yaml

    path = tmp_path_factory.mktemp("compiled") / "chaos.yaml"
    compiler.Compiler().compile(chaos, str(path))
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


@pytest.fixture(scope="module")
def own_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    settings = {"MLMESH_PIPELINE_LEASE_SECONDS": "2", "MLMESH_PIPELINE_SCAN_SECONDS": "0.2"}
    options = [f"--service={name}" for name in ("pipeline", "metadata", "profile")]
    running = RunningMesh(tmp_path_factory.mktemp("chaos"), *options, env=settings).up()
    yield running
    running.down()


class Stubborn:
    """Asks until it is answered: every process between it and the database may be dead for a while."""

    def __init__(self, mesh: RunningMesh) -> None:
        self._mesh = mesh

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        found: dict[str, Any] = RunningMesh.wait(lambda: self._try("GET", path, params=query), 60)
        return found

    def create(self, spec: dict[str, Any], folder: Path) -> str:
        """Creates a run; when the answer was lost, looks whether it is there before it asks again."""
        body = {
            "display_name": folder.name,
            "pipeline_spec": spec,
            "runtime_config": {"parameters": {"folder": str(folder)}},
        }
        while True:
            made = self._try("POST", f"{API}/runs", json=body)
            if made is not None:
                return str(made["run_id"])
            for run in self.get(f"{API}/runs", page_size=200).get("runs", []):
                if run["display_name"] == folder.name:
                    return str(run["run_id"])

    def _try(self, method: str, path: str, **arguments: Any) -> dict[str, Any] | None:
        try:
            answer = httpx.request(method, f"{self._mesh.ingress}{path}", timeout=10, **arguments)
        except httpx.TransportError:
            return None
        if answer.status_code >= 500:
            return None
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


def _kill_launcher(mesh: RunningMesh) -> None:
    """Kills the process that tasks are forked from."""
    try:
        children = psutil.Process(mesh.pid("pipeline")).children()
    except psutil.NoSuchProcess:
        return
    for child in children:
        child.kill()


def _with_variable(name: str, values: set[str]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) in values and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _marks(folders: list[Path]) -> int:
    return sum(len(os.listdir(folder)) for folder in folders)


def test_all_ends_right(own_mesh: RunningMesh, spec: dict[str, Any], tmp_path: Path) -> None:
    seed = int(os.environ.get("MLMESH_CHAOS_SEED", "20241124"))
    chance = random.Random(seed)
    client = Stubborn(own_mesh)
    folders = [tmp_path / f"marks-{number}" for number in range(RUNS)]
    for folder in folders:
        folder.mkdir()
    waiting = list(folders)
    runs: dict[str, Path] = {}

    def submit(count: int) -> None:
        for _ in range(min(count, len(waiting))):
            folder = waiting.pop()
            runs[client.create(spec, folder)] = folder

    submit(RUNS // 2)
    victims = ["pipeline", "launcher", "ingress"]
    for number in range(KILLS):
        wanted = min(_marks(folders) + chance.randint(1, RUNS * TASKS // (2 * KILLS)), (RUNS - len(waiting)) * TASKS)
        RunningMesh.wait(lambda wanted=wanted: _marks(folders) >= wanted, 120)
        victim = victims[number] if number < len(victims) else chance.choice(victims)
        if victim == "launcher":
            _kill_launcher(own_mesh)
        else:
            own_mesh.kill(victim)
        submit(1 + RUNS // (2 * KILLS))  # while what was killed is away
    submit(len(waiting))

    def ended() -> bool:
        listed = client.get(f"{API}/runs", page_size=200)["runs"]
        return sum(run["state"] in {"SUCCEEDED", "FAILED", "CANCELED"} for run in listed) == RUNS

    RunningMesh.wait(ended, SECONDS)
    assert len(client.get(f"{API}/runs", page_size=200)["runs"]) == RUNS == len(runs), "a run was made twice, or lost"
    for run_id, folder in runs.items():
        run = client.get(f"{API}/runs/{run_id}")
        assert run["state"] == "SUCCEEDED", run.get("error")
        attempts = 0
        leaves = 0
        for task in run["run_details"]["task_details"]:
            detail = task.get("executor_detail", {})
            jobs = [*detail.get("failed_main_jobs", []), *filter(None, [detail.get("main_job")])]
            attempts += len(jobs)
            leaves += bool(jobs)
        assert leaves == TASKS
        written = {path.name: len(path.read_text()) for path in folder.iterdir()}
        assert set(written) == {"first", "last", *(f"n{number}" for number in range(WIDTH))}
        # A task that was killed after it had written, and before that was known, has written again: it says so.
        assert TASKS <= sum(written.values()) <= attempts
    assert not _with_variable("MLMESH_RUN_ID", set(runs))
    left = [path for path in (own_mesh.data_dir / "pipeline" / "runs").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".log"}, left
    if FULL:
        restarts = {name: each["restarts"] for name, each in own_mesh.state()["processes"].items()}
        print(f"seed {seed}; {RUNS} runs of {TASKS} tasks; {KILLS} kills; restarts {restarts}")
