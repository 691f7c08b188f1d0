"""`mlmesh tune`, against a whole mesh."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

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


def test_trials_are_watched_and_the_best_is_found(parabola: tuple[Path, CompletedProcess[str]]) -> None:
    _, done = parabola
    assert done.returncode == 0, done.stderr
    # While it runs, a line for each trial that has ended; at the end, the table.
    assert sorted(line.partition("loss=")[2] for line in done.stderr.splitlines()) == ["0.5", "1.5", "1.5"]
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
    assert again.returncode == 1 and "mlmesh tune --experiment cli-parabola" in again.stderr


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
