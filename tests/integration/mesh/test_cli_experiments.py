"""`mlmesh tune`, against a whole mesh."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
import yaml
from support.mesh import RunningMesh

Command = Callable[..., CompletedProcess[str]]


def experiment(name: str, code: str) -> dict[str, Any]:
    command = ["python", "-c", code, "${trialParameters.x}"]
    container = {"name": "main", "image": "python", "command": command}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "grid"},
            "maxTrialCount": 3,
            "parallelTrialCount": 2,
            "maxFailedTrialCount": 0,
            "parameters": [
                {"name": "x", "parameterType": "double", "feasibleSpace": {"min": "2", "max": "4", "step": "1"}}
            ],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "x", "reference": "x"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"containers": [container]}}},
                },
            },
        },
    }


@pytest.fixture(scope="module")
def parabola(mlmesh: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompletedProcess[str]]:
    """A manifest, and what `mlmesh tune --watch` made of it."""
    path = tmp_path_factory.mktemp("tune") / "parabola.yaml"
    code = "import sys; print('loss =', (float(sys.argv[1]) - 3) ** 2 + 0.5)"
    path.write_text(yaml.safe_dump(experiment("cli-parabola", code)))
    return path, mlmesh("tune", str(path), "--watch")


def test_its_report_is_saved(mlmesh: Command, parabola: tuple[Path, CompletedProcess[str]], tmp_path: Path) -> None:
    done = mlmesh("tune", "report", "cli-parabola", "-o", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stderr
    assert "cli-parabola-3" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_trials_are_watched_and_the_best_is_found(parabola: tuple[Path, CompletedProcess[str]]) -> None:
    _, done = parabola
    assert done.returncode == 0, done.stderr
    # While it runs, a line for each trial that has ended, among others; at the end, the table.
    losses = [line.partition("loss=")[2].split()[0] for line in done.stderr.splitlines() if "loss=" in line]
    assert sorted(losses) == ["0.5", "1.5", "1.5"]
    assert done.stderr.splitlines()[-1].startswith("experiment cli-parabola Succeeded: ")
    best = next(line for line in done.stdout.splitlines() if line.startswith("best:"))
    assert "loss=0.5" in best and "(x=3)" in best
    marked = next(line for line in done.stdout.splitlines() if "★" in line)
    assert best.split()[1] in marked and "Succeeded" in marked


def test_an_experiment_is_shown_again_and_listed(mlmesh: Command, parabola: tuple[Path, CompletedProcess[str]]) -> None:
    found = json.loads(mlmesh("tune", "--experiment", "cli-parabola", "--json").stdout)
    assert found["status"]["trials_succeeded"] == 3 and len(found["trials"]) == 3
    listed = mlmesh("tune")
    assert "cli-parabola" in listed.stdout and "Succeeded" in listed.stdout
    path, _ = parabola
    again = mlmesh("tune", str(path))
    assert again.returncode == 1 and "mlmesh tune watch cli-parabola" in again.stderr


def test_an_experiment_whose_trials_fail_ends_with_1(mlmesh: Command, tmp_path: Path) -> None:
    path = tmp_path / "failing.yaml"
    path.write_text(yaml.safe_dump(experiment("cli-failing", "raise SystemExit(3)")))
    started = mlmesh("tune", str(path))
    assert started.returncode == 0 and "experiment cli-failing" in started.stdout
    done = mlmesh("tune", "--experiment", "cli-failing", "--watch")
    assert done.returncode == 1 and "Failed" in done.stdout


def test_what_is_wrong_is_said(mlmesh: Command, tmp_path: Path) -> None:
    wrong = experiment("cli-wrong", "")
    wrong["spec"]["maxTrialCount"] = -1
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    for arguments, said in [
        ([str(tmp_path / "wrong.yaml")], "maxTrialCount"),
        (["--experiment", "no-such"], "not found"),
    ]:
        done = mlmesh("tune", *arguments)
        assert done.returncode == 1 and said in done.stderr, (arguments, done.stderr)
    assert mlmesh("tune", str(tmp_path / "wrong.yaml"), "--experiment", "x").returncode == 2


def test_an_experiment_is_looked_at_changed_and_deleted(mesh: RunningMesh, quick: Command, tmp_path: Path) -> None:
    """Through the ingress, once, every path of katib's REST."""

    def answer(*arguments: str) -> Any:
        done = quick("tune", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    go = tmp_path / "go"
    waiting = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)"
    manifest = experiment("cli-changed", f"print('loss = 2', flush=True)\n{waiting}\nprint('loss = 1')")
    manifest["spec"] |= {"maxTrialCount": 2, "parallelTrialCount": 1, "algorithm": {"algorithmName": "random"}}
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(manifest))
    assert quick("tune", str(tmp_path / "changed.yaml")).returncode == 0

    # While the first trial waits: what it has reported, and what it prints.
    reports = mesh.wait(lambda: answer("metrics", "cli-changed", "1"))
    assert [(one["metric"], one["value"]) for one in reports] == [("loss", "2")]
    assert "loss = 2" in quick("tune", "logs", "cli-changed", "cli-changed-1").stdout
    log = f"{mesh.ingress}/katib/v1/namespaces/default/experiments/cli-changed/trials/cli-changed-1/log"
    assert httpx.get(log, params={"follow": "perhaps"}).status_code == 400

    assert answer("pause", "cli-changed")["status"]["paused"]
    assert next(one for one in answer("list") if one["name"].endswith("/cli-changed"))["status"]["paused"]
    spec = answer("edit", "cli-changed", "--max-trials", "3", "--parallel", "2", "--max-failed", "1", "--goal", "-1")
    changed = spec["manifest"]["spec"]
    assert [changed[name] for name in ("maxTrialCount", "parallelTrialCount", "maxFailedTrialCount")] == [3, 2, 1]
    assert changed["objective"]["goal"] == -1
    assert "goal" not in answer("edit", "cli-changed", "--goal", "none")["manifest"]["spec"]["objective"]
    assert quick("tune", "trials", "cli-changed").stdout.count("cli-changed-") == 1
    assert not answer("resume", "cli-changed")["status"].get("paused")

    with httpx.stream("GET", log, params={"follow": "true"}, timeout=60) as following:
        lines = following.iter_lines()
        assert next(lines) == "loss = 2"
        go.touch()  # the log goes on until the trial ends
        assert list(lines) == ["loss = 1"]

    watched = quick("tune", "watch", "cli-changed")
    assert watched.returncode == 0 and "3 of 3 trials" in watched.stdout, watched.stderr
    assert "loss = 1" in quick("tune", "logs", "cli-changed", "best", "-f").stdout
    assert len(answer("trials", "cli-changed", "--best", "2")) == 2
    refused = quick("tune", "pause", "cli-changed")
    assert refused.returncode == 1 and "ended; see how it is with: mlmesh tune show cli-changed" in refused.stderr
    assert answer("delete", "cli-changed", "--yes") == {"deleted": "cli-changed"}
    gone = quick("tune", "show", "cli-changed")
    assert gone.returncode == 1 and "mlmesh tune list" in gone.stderr
