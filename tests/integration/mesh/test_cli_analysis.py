"""`mlmesh logs`, `rerun`, `diff`, `cache explain` and `debug` of runs, and what `mlmesh run` takes."""

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from support.mesh import RunningMesh

Command = Callable[..., CompletedProcess[str]]
BAD = "for-loop-2[3]/count"


@pytest.fixture(scope="session")
def failed_id(failed_run: CompletedProcess[str]) -> str:
    return failed_run.stdout.splitlines()[0].split()[-1]


def refused(done: CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1 and all(word in done.stderr for word in words), done.stderr


# -- run --------------------------------------------------------------------------------------------------------------


def test_a_wide_loop_is_folded_and_what_failed_is_told(failed_run: CompletedProcess[str], failed_id: str) -> None:
    lines = failed_run.stdout.splitlines()
    assert failed_run.returncode == 1 and "FAILED" in lines[0]
    assert any("12 iterations: 1 FAILED, 11 SUCCEEDED" in line for line in lines)
    assert [line for line in lines if "count" in line and "FAILED" in line and "factor 3.0 is bad" in line], lines
    assert not [line for line in lines if "for-loop-2[4]" in line]
    assert any("shaky" in line and "SUCCEEDED" in line and "attempt 2" in line for line in lines)
    assert f"  its log: mlmesh logs {failed_id} '{BAD}'" in lines
    told = failed_run.stderr.splitlines()  # no terminal: a line for each change that is seen
    assert {"for-loop-2[4]/count SUCCEEDED", f"{BAD} FAILED", f"run {failed_id} FAILED"} <= set(told)


def test_all_of_a_wide_loop(quick: Command, failed_id: str) -> None:
    assert "for-loop-2[4]" in quick("runs", failed_id, "--all").stdout


def test_functions_of_files_and_modules(mesh: RunningMesh, steps_file: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> CompletedProcess[str]:
        command = [sys.executable, "-m", "mlmesh", "run", *arguments, "--data-dir", str(mesh.data_dir)]
        return subprocess.run(command, cwd=steps_file.parent, capture_output=True, text=True, timeout=90, check=False)

    (tmp_path / "values.yaml").write_text("rows: 5\n")
    done = run("cli_steps:make", "--params-file", str(tmp_path / "values.yaml"), "--watch", "--json")
    made = json.loads(done.stdout)  # of a component alone
    parameters = made["runtime_config"]["parameters"]
    assert made["state"] == "SUCCEEDED" and parameters == {"rows": 5, "seconds": 0}, done.stderr
    refused(run(f"{steps_file}:nothing"), "no pipeline 'nothing'", "another, steps")
    refused(run("no_such_module:f"), "there is no module 'no_such_module'")


def test_parameters_are_checked_before_anything_is_sent(quick: Command, steps_yaml: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("rows: five\n")
    refused(quick("run", steps_yaml, "--params-file", str(values)), "'rows': expected a whole number")
    refused(quick("run", steps_yaml, "-p", "row=1"), "did you mean 'rows'?")
    assert quick("run", steps_yaml, "--break").returncode == 2


# -- logs -------------------------------------------------------------------------------------------------------------


def test_logs_of_one_task_of_a_loop_and_of_all(quick: Command, failed_id: str) -> None:
    one = quick("logs", failed_id, BAD)
    assert one.returncode == 0 and "counting with 3.0" in one.stdout.splitlines()
    assert one.stdout.splitlines()[-1] == "ValueError: factor 3.0 is bad"
    loop = quick("logs", failed_id[:9], "count").stdout.splitlines()
    assert {f"for-loop-2[{n}]/count | counting with {n}.0" for n in range(12)} <= set(loop)
    whole = quick("logs", failed_id, "--json")
    found = json.loads(whole.stdout)["tasks"]
    assert len(found) == 14 and any("making 2" in one["log"] for one in found if one["task"] == "make")
    assert [one["attempt"] for one in found if one["task"] == "shaky"] == [2]


def test_logs_of_an_attempt(quick: Command, failed_id: str) -> None:
    assert "first" in quick("logs", failed_id, "shaky", "--attempt", "1").stdout.splitlines()
    assert "tried" in quick("logs", failed_id, "shaky").stdout.splitlines()
    refused(quick("logs", failed_id, "shaky", "--attempt", "3"), "no attempt 3; there are: 1, 2")
    refused(quick("logs", failed_id, "shakey"), "did you mean shaky?")
    refused(quick("logs", "deadbeef"), "mlmesh runs")
    refused(quick("logs", "no-service"), "there is no log of 'no-service'", "pipeline")
    assert quick("logs", failed_id, "--lines", "3").returncode == 2


def test_logs_are_followed_to_the_end(mesh: RunningMesh, quick: Command, steps_yaml: str) -> None:
    started = quick("run", steps_yaml, "--no-cache", "--json")
    run_id = json.loads(started.stdout)["run_id"]
    followed = quick("logs", run_id, "-f")
    lines = followed.stdout.splitlines()
    assert followed.returncode == 0, followed.stderr
    assert "make | making 2" in lines and {"shaky | first", "shaky | tried"} <= set(lines)
    assert followed.stderr.splitlines() == [f"mlmesh: run {run_id} FAILED"]  # 9 is bad
    one = [json.loads(line) for line in quick("logs", run_id, "make", "-f", "--json").stdout.splitlines()]
    assert {"task": "make", "attempt": 1, "line": "making 2"} in one


# -- reruns, differences, the cache -----------------------------------------------------------------------------------


def test_a_failed_run_is_taken_up_compared_and_explained(
    mesh: RunningMesh, quick: Command, failed_id: str, steps_yaml: str
) -> None:
    planned = quick("rerun", failed_id, "-p", "bad=77", "--from", BAD, "--dry-run", "--json")
    plan = json.loads(planned.stdout)
    assert "run_id" not in plan and "make" in plan["reused"], planned.stderr
    done = quick("rerun", failed_id, "--from", BAD, "--watch")
    assert done.returncode == 1 and f"{BAD}: named" in done.stderr and "taken over: " in done.stderr
    again = quick("rerun", failed_id, "-p", "bad=77", "--watch", "--json")
    ended = json.loads(again.stdout)
    states = {task["display_name"]: task for task in ended["run_details"]["task_details"]}
    assert ended["state"] == "SUCCEEDED", again.stderr
    assert states["make"]["executor_detail"]["pre_caching_check_job"].startswith("cache/")
    assert states["shaky"]["state"] == "SKIPPED"

    def artifacts(run_id: str) -> list[str]:
        tasks = json.loads(quick("runs", run_id, "--json").stdout)["run_details"]["task_details"]
        (made,) = (task["outputs"]["made"] for task in tasks if task["display_name"] == "make")
        return list(made.get("artifact_ids", []))

    assert mesh.wait(lambda: artifacts(failed_id)) == mesh.wait(
        lambda: artifacts(ended["run_id"])
    )  # one in the lineage
    refused(quick("rerun", ended["run_id"]), "nothing would run anew")
    refused(quick("rerun", failed_id, "--from", "mak"), "did you mean 'make'")
    refused(quick("rerun", failed_id, "-p", "bat=1"), "did you mean 'bad'?")

    shown = quick("diff", failed_id, ended["run_id"]).stdout
    assert "  bad: 3 → 77  (+74)" in shown.splitlines() and "factor 3.0 is bad" in shown
    found = json.loads(quick("diff", failed_id[:9], "latest", "--json").stdout)
    changed = next(task for task in found["tasks"] if task["path"] == BAD)
    assert changed["before"]["state"] == "FAILED" and changed["after"]["state"] == "SUCCEEDED"
    assert {"name": "Output", "after": 6} in changed["outputs"]

    missed = quick("run", steps_yaml, "-p", "bad=55", "-p", "rows=3", "--watch", "--json")
    run_id = json.loads(missed.stdout)["run_id"]
    explained = quick("cache", "explain", run_id, "make")
    assert "make CHANGED" in explained.stdout and "  parameter rows: 2 → 3" in explained.stdout.splitlines()
    newest = json.loads(quick("cache", "explain", "for-loop-2[1]/count", "--json").stdout)  # of the newest run
    assert newest["verdict"] == "VERDICT_CHANGED" and newest["fingerprint"]
    assert {each["kind"] for each in newest["differences"]} == {"KIND_PARAMETER", "KIND_ARTIFACT"}
    assert "caching is off" in quick("cache", "explain", run_id, "shaky").stdout
    refused(quick("cache", "explain", run_id, "mak"), "did you mean 'make'")


# -- debugging --------------------------------------------------------------------------------------------------------


class Terminal:
    """A command on a terminal of its own, as a person sits before it."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "mlmesh", *arguments]
        env = {**os.environ, "TERM": "dumb", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.close(theirs)
        self.seen = ""

    def wait_for(self, words: str, seconds: float = 60) -> str:
        """Reads until the words appear; gives what came before them."""
        deadline = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen
            try:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended without {words!r}: {self.seen}") from None
        before, _, self.seen = self.seen.partition(words)
        return before

    def send(self, line: str) -> None:
        os.write(self._ours, f"{line}\n".encode())

    def end(self) -> tuple[int, str]:
        try:
            while piece := os.read(self._ours, 65536):
                self.seen += piece.decode(errors="replace")
        except OSError:
            pass
        os.close(self._ours)
        return self._process.wait(30), self.seen


def test_a_failed_task_is_looked_at_post_mortem(
    mesh: RunningMesh, failed_id: str, quick: Command, tmp_path: Path
) -> None:
    before = quick("runs", failed_id, "--json").stdout
    arguments = ["debug", failed_id, "count", "--scratch", str(tmp_path)]  # of twelve, the one that failed
    terminal = Terminal(*arguments, "--data-dir", str(mesh.data_dir))
    assert "factor 3.0 is bad" in terminal.wait_for("(Pdb) ")
    terminal.send("p (number, factor, type(factor).__name__)")
    assert "(2, 3.0, 'float')" in terminal.wait_for("(Pdb) ")
    terminal.send("q")
    code, _ = terminal.end()
    assert code == 1 and quick("runs", failed_id, "--json").stdout == before


def test_a_task_is_stopped_at_its_first_line(mesh: RunningMesh, failed_id: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    arguments = ["debug", failed_id, "for-loop-2[5]/count", "--break", "--scratch", str(scratch)]
    terminal = Terminal(*arguments, "--data-dir", str(mesh.data_dir))
    assert "with open(made.path) as file:" in terminal.wait_for("(Pdb) ")
    terminal.send("p made.path")
    assert str(scratch) in terminal.wait_for("(Pdb) ")  # a copy: what the debugger changes stays there
    terminal.send("factor = 7.5")
    terminal.wait_for("(Pdb) ")
    terminal.send("c")
    code, seen = terminal.end()
    assert code == 0 and "Output = 15.0" in seen and "Traceback" not in seen, seen


def test_a_run_is_made_and_its_task_debugged(mlmesh: Command, quick: Command, steps_yaml: str, tmp_path: Path) -> None:
    arguments = ["run", steps_yaml, "-p", "bad=4", "--pdb", "count", "--json"]
    done = mlmesh(*arguments, input="p factor\nq\n")
    answer: dict[str, Any] = json.loads(done.stdout)  # pdb itself speaks on standard error then
    assert answer["state"] == "FAILED" and answer["error"] == "ValueError: factor 4.0 is bad", done.stderr
    assert answer["task"] == "for-loop-2[4]/count" and "(Pdb) 4.0" in done.stderr and done.returncode == 1
    shutil.rmtree(answer["scratch"])
    arguments = ["debug", answer["run_id"], "for-loop-2[2]/count", "--scratch", str(tmp_path), "--json"]
    well = json.loads(mlmesh(*arguments).stdout)
    assert well["state"] == "SUCCEEDED" and well["parameters"] == {"Output": 4.0}
    assert well["artifacts"]["metrics"].startswith(str(tmp_path))
    refused(quick(*arguments), "is not empty")
    refused(quick("debug", answer["run_id"], "for-loop-2"), "is of kind LOOP")
    refused(quick("debug", answer["run_id"], "nothing"), "there are: for-loop-2, for-loop-2/count, make, shaky")


def test_ctrl_c_leaves_a_followed_run_going(mesh: RunningMesh, quick: Command, steps_yaml: str) -> None:
    started = quick("run", steps_yaml, "-p", "seconds=600", "--no-cache", "--json")
    run_id = json.loads(started.stdout)["run_id"]
    command = [sys.executable, "-m", "mlmesh", "logs", run_id, "make", "-f", "--data-dir", str(mesh.data_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line == "making 2\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "the run goes on" in errors and "Traceback" not in errors
    assert shlex.split(errors.partition("with: ")[2]) == ["mlmesh", "logs", run_id, "make", "-f"]
    assert json.loads(quick("terminate", run_id, "--watch", "--json").stdout)["state"] == "CANCELED"
