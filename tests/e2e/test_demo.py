"""The main job, whole: as a newcomer runs it, and with each service killed in the middle of it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.mesh import RunningMesh

DEMO = Path(__file__).parents[2] / "examples" / "digits" / "demo.py"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def start_demo(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(DEMO), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check(output: str) -> None:
    """Whether the demo showed what it must."""
    accuracy = re.search(r"accuracy on the test split: ([0-9.]+)", output)
    assert accuracy and 0.9 <= float(accuracy[1]) < 1, output
    assert re.search(r"trial: default/digits-", output), output
    assert "system.Dataset from load  rows=1797" in output, output
    right = re.search(r"(\d+) of 20 right", output)
    assert right and int(right[1]) >= 16, output
    second = output.partition("4. The same again, from the cache")[2]
    assert second.count("CACHED") == 8, output


def test_the_demo_brings_a_mesh_up_and_takes_it_down() -> None:
    demo = start_demo()
    output, _ = demo.communicate(timeout=150)
    assert demo.returncode == 0, output
    check(output)
    assert "the mesh is down" in output


def test_the_demo_fails_where_nothing_answers() -> None:
    """A demo that cannot fail proves nothing."""
    demo = start_demo("--ingress", "http://127.0.0.1:1")
    output, _ = demo.communicate(timeout=150)
    assert demo.returncode != 0, output


@pytest.fixture(scope="module")
def own_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    # What a service held when it was killed is taken up after its lease: not by the default of a quarter of a minute.
    leases = {f"MLMESH_{service}_LEASE_SECONDS": "3" for service in ("PIPELINE", "KATIB")}
    running = RunningMesh(tmp_path_factory.mktemp("killed"), env=leases).up()
    yield running
    running.down()


def task_states(ingress: str, known: set[str]) -> dict[str, str]:
    """Gives the states of the tasks, by name, of the run that was not there before."""
    try:
        listed = httpx.get(f"{ingress}/apis/v2beta1/runs", params={"sort_by": "created_at desc"}, timeout=10)
    except httpx.HTTPError:
        return {}
    if not listed.is_success:
        return {}
    new = [run["run_id"] for run in listed.json().get("runs", []) if run["run_id"] not in known]
    for run_id in new:
        run = httpx.get(f"{ingress}/apis/v2beta1/runs/{run_id}", timeout=10).json()
        tasks = run.get("run_details", {}).get("task_details", [])
        return {str(task.get("display_name")): str(task.get("state")) for task in tasks}
    return {}


def restarts_of(mesh: RunningMesh, service: str) -> int:
    return int(mesh.state()["processes"][service]["restarts"])


@pytest.mark.parametrize(
    ("service", "task", "states", "seed"),
    [
        ("pipeline", "tune", {"RUNNING"}, 11),
        ("katib", "tune", {"RUNNING"}, 12),
        ("metadata", "tune", {"RUNNING"}, 13),
        ("profile", "train", {"RUNNING"}, 14),
        ("serving", "evaluate", {"SUCCEEDED"}, 15),  # deploying, which comes next, takes too short a time to be seen
    ],
)
def test_a_service_is_killed_in_mid_run(
    own_mesh: RunningMesh, service: str, task: str, states: set[str], seed: int
) -> None:
    runs = httpx.get(f"{own_mesh.ingress}/apis/v2beta1/runs", params={"page_size": 100}, timeout=10).json()
    known = {run["run_id"] for run in runs.get("runs", [])}
    restarts = restarts_of(own_mesh, service)
    demo = start_demo("--ingress", own_mesh.ingress, "--seed", str(seed))
    try:
        own_mesh.wait(lambda: demo.poll() is not None or task_states(own_mesh.ingress, known).get(task) in states, 60)
        assert demo.poll() is None, f"the demo ended before {task} was {states}:\n{demo.communicate()[0]}"
        own_mesh.kill(service)
        output, _ = demo.communicate(timeout=150)
    finally:
        demo.kill()
    assert demo.returncode == 0, f"{output}\n{own_mesh.log(service)[-3000:]}"
    check(output)
    assert restarts_of(own_mesh, service) == restarts + 1
