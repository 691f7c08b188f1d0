"""`mlmesh run` and `mlmesh runs`, against a whole mesh."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from support.mesh import RunningMesh

Command = Callable[..., CompletedProcess[str]]

SLEEPER = """
from kfp import dsl

@dsl.component
def sleep(seconds: float):
    import time
    time.sleep(seconds)

@dsl.pipeline
def one(seconds: float):
    sleep(seconds=seconds)

@dsl.pipeline
def other():
    sleep(seconds=0.0)
"""


def tasks(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["display_name"]: task for task in run["run_details"]["task_details"]}


def test_a_python_file_is_compiled_run_and_watched(ended_run: dict[str, Any]) -> None:
    assert ended_run["state"] == "SUCCEEDED"
    assert ended_run["runtime_config"]["parameters"] == {"rows": 4, "word": "row"}
    assert ended_run["display_name"].startswith("cli-rows ")
    assert set(tasks(ended_run)) == {"make", "count"}


def test_a_run_is_listed_shown_and_its_log_printed(mlmesh: Command, ended_run: dict[str, Any]) -> None:
    run_id = ended_run["run_id"]
    listed = mlmesh("runs")
    line = next(line for line in listed.stdout.splitlines() if line.startswith(run_id[:8]))
    assert listed.returncode == 0 and ended_run["display_name"] in line and "SUCCEEDED" in line
    assert run_id in [run["run_id"] for run in json.loads(mlmesh("runs", "--json").stdout)]
    shown = mlmesh("runs", run_id[:10])  # the beginning is enough
    artifact = tasks(ended_run)["make"]["outputs"]["made"]["artifact_ids"][0]
    line = next(line for line in shown.stdout.splitlines() if "make" in line)
    assert "SUCCEEDED" in line and f"made #{artifact}" in line
    assert "counted 4" in mlmesh("runs", run_id, "--log", "count").stdout


def test_a_compiled_file_is_run_in_an_experiment_and_answered_from_the_cache(
    mlmesh: Command, ended_run: dict[str, Any], compiled_file: Path
) -> None:
    started = mlmesh("run", str(compiled_file), "-p", "rows=4", "--name", "again", "--experiment", "of the cli")
    assert started.returncode == 0, started.stderr
    run_id = started.stdout.split()[1]
    watched = mlmesh("runs", run_id, "--watch")
    assert watched.returncode == 0, watched.stderr
    assert "again" in watched.stdout and watched.stdout.count("CACHED") == 2
    assert f"run {run_id} SUCCEEDED" in watched.stderr.splitlines()
    # From standard input, and with the cache switched off.
    answer = mlmesh("run", "-", "-p", "rows=4", "--no-cache", "--watch", "--json", input=compiled_file.read_text())
    fresh = json.loads(answer.stdout)
    assert {task["state"] for task in fresh["run_details"]["task_details"]} == {"SUCCEEDED"}
    assert fresh["experiment_id"] != json.loads(mlmesh("runs", run_id, "--json").stdout)["experiment_id"]


def test_a_run_that_fails_ends_with_1_and_says_where_to_look(mlmesh: Command, compiled_file: Path) -> None:
    done = mlmesh("run", str(compiled_file), "-p", "rows=-1", "--watch")
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if "make" in line)
    assert "FAILED" in line and "ValueError" in line
    told = [shlex.split(line.partition("mlmesh ")[2]) for line in done.stdout.splitlines() if ": mlmesh " in line]
    assert [command[0] for command in told] == ["logs", "debug", "retry"]
    assert "ValueError: rows must not be negative" in mlmesh(*told[0]).stdout


def test_what_is_wrong_is_said_and_nothing_runs(mlmesh: Command, compiled_file: Path, tmp_path: Path) -> None:
    def count() -> int:
        return len(json.loads(mlmesh("runs", "--limit", "500", "--json").stdout))

    before = count()
    invalid = {"pipelineInfo": {"name": "x"}, "root": {"dag": {"tasks": {"t": {}}}}}
    (tmp_path / "invalid.yaml").write_text(yaml.safe_dump(invalid))
    for arguments, said in [
        ([str(compiled_file), "-p", "rows=many"], "--param rows=many: expected a whole number"),
        ([str(tmp_path / "missing.yaml")], "No such file"),
        ([str(tmp_path / "invalid.yaml")], "pipeline_spec"),
    ]:
        done = mlmesh("run", *arguments)
        assert done.returncode == 1 and said in done.stderr, (arguments, done.stderr)
    assert count() == before


def test_an_unknown_run_and_task(mlmesh: Command, ended_run: dict[str, Any]) -> None:
    unknown = mlmesh("runs", "00000000-0000-0000-0000-000000000000", "--json")
    assert unknown.returncode == 1
    assert "not found" in json.loads(unknown.stdout)["error"] and "mlmesh runs" in unknown.stderr
    part = mlmesh("terminate", "0000")
    assert part.returncode == 1 and "see which there are with: mlmesh runs" in part.stderr
    task = mlmesh("runs", ended_run["run_id"], "--log", "nothing")
    assert task.returncode == 1 and "there are: count, make" in task.stderr


def test_ctrl_c_ends_the_watching_and_not_the_run(mesh: RunningMesh, mlmesh: Command, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    arguments = ["run", str(tmp_path / "sleeper.py"), "--pipeline", "one", "-p", "seconds=2", "--watch"]
    command = [sys.executable, "-m", "mlmesh", *arguments, "--data-dir", str(mesh.data_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "sleep RUNNING" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "the run goes on" in errors and "Traceback" not in errors
    again = errors.partition("with: mlmesh ")[2].split()
    done = mlmesh(*again)
    assert done.returncode == 0 and "SUCCEEDED" in done.stdout


def test_a_run_is_drawn_on_a_terminal(mesh: RunningMesh, ended_run: dict[str, Any]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mlmesh", "runs", ended_run["run_id"], "--watch"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(mesh.data_dir)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    output, _ = process.communicate(timeout=60)
    os.close(theirs)
    drawn = b""
    try:
        while piece := os.read(ours, 65536):
            drawn += piece
    except OSError:
        pass  # the other end is closed and everything has been read
    os.close(ours)
    assert process.returncode == 0 and "SUCCEEDED" in output
    assert b"make" in drawn and b"SUCCEEDED" in drawn and b"\x1b[" in drawn


@pytest.mark.parametrize("arguments", [("runs",), ("tune",), ("deploy",), ("predict", "m", "[1]"), ("lineage", "1")])
def test_without_a_mesh_every_command_says_how_to_start_one(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    nowhere = RunningMesh(tmp_path / "nothing", env={"MLMESH_INGRESS": ""})
    done = nowhere.command(*arguments, "--data-dir", str(nowhere.data_dir))
    assert done.returncode == 1 and "mlmesh up" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not nowhere.data_dir.exists()


def test_another_ingress(mesh: RunningMesh, ended_run: dict[str, Any], tmp_path: Path) -> None:
    elsewhere = RunningMesh(tmp_path)
    for arguments in (["--ingress", mesh.ingress], ["--ingress", mesh.grpc]):
        done = elsewhere.command("runs", ended_run["run_id"], *arguments, "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["state"] == "SUCCEEDED", done.stderr
    for url, said in [
        ("http://127.0.0.1:1", "nothing answers at http://127.0.0.1:1"),
        ("ftp://127.0.0.1", "is not the URL of an ingress"),
        (mesh.service("profile").http, "no such path"),
    ]:
        done = elsewhere.command("runs", "--ingress", url)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_schedules(mlmesh: Command, compiled_file: Path) -> None:
    assert mlmesh("schedules", "create", str(compiled_file)).returncode == 2
    assert mlmesh("schedules", "create", str(compiled_file), "--every", "soon").returncode == 2
    when = mlmesh("schedules", "create", str(compiled_file), "--every", "1h", "--start", "soon")
    assert when.returncode == 2 and "--start must be a time" in when.stderr
    refused = mlmesh("schedules", "create", str(compiled_file), "--cron", "* *")
    assert refused.returncode == 1 and "seconds first" in refused.stderr
    done = mlmesh(
        "schedules", "create", str(compiled_file), "--cron", "* * * * * *", "-p", "rows=2", "--name", "ticks", "--json"
    )
    made = json.loads(done.stdout)
    assert made["status"] == "ENABLED" and made["no_catchup"] is True, done.stderr
    listed = mlmesh("schedules", "list").stdout
    assert "ticks" in listed and "* * * * * *" in listed and "ENABLED" in listed
    short = made["recurring_run_id"][:8]
    assert mlmesh("schedules", "disable", short).returncode == 0
    assert json.loads(mlmesh("schedules", "list", "--json").stdout)[0]["status"] == "DISABLED"
    near = mlmesh("schedules", "enable", "tick")
    assert near.returncode == 1 and "did you mean ticks?" in near.stderr
    assert mlmesh("schedules", "enable", "ticks").returncode == 0
    assert mlmesh("schedules", "delete", short).returncode == 0
    again = mlmesh("schedules", "delete", short)
    assert again.returncode == 1 and "mlmesh schedules list" in again.stderr


def test_terminated_and_retried(mlmesh: Command, tmp_path: Path) -> None:
    file = tmp_path / "sleeper.py"
    file.write_text(SLEEPER)
    started = mlmesh("run", str(file), "--pipeline", "one", "-p", "seconds=600", "--no-cache", "--json")
    run_id = json.loads(started.stdout)["run_id"]
    assert mlmesh("retry", run_id).returncode == 1  # it has not ended
    ended = mlmesh("terminate", run_id[:10], "--watch", "--json")
    assert ended.returncode == 1 and json.loads(ended.stdout)["state"] == "CANCELED", ended.stderr
    assert mlmesh("retry", run_id).returncode == 0
    assert json.loads(mlmesh("terminate", run_id, "--watch", "--json").stdout)["state"] == "CANCELED"
    assert mlmesh("terminate", run_id).returncode == 1
