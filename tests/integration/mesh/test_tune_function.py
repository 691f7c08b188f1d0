"""`mlmesh.tune`, against a whole mesh."""

import ast
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import joblib
import mlmesh
import pytest
from mlmesh import search
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from support.mesh import RunningMesh


def parabola(parameters: dict[str, Any]) -> dict[str, float]:
    import os

    assert os.environ["COLOUR"] == f"$blue {parameters['x']}"
    assert "${trialParameters.x}".startswith("$" + "{trial"), "what is in the source is no placeholder"
    assert type(parameters["x"]) is int and parameters["shift"] == [1, None] and parameters["on"] in {True, False}
    distance = abs(parameters["x"] - 3)
    for epoch in range(3):
        print("so far", end="")
        mlmesh.report(loss=distance + 3 - epoch)
    return {"loss": distance + (0 if parameters["on"] else 0.5), "accuracy": 1 / (1 + distance)}


def nothing(parameters: dict[str, Any]) -> float:
    return math.nan if parameters else 0.0  # a name that is not there in the trial


def breaks(parameters: dict[str, Any]) -> float:
    raise RuntimeError(f"I broke at {parameters['x']}")


@pytest.fixture(scope="module")
def tuned(mesh: RunningMesh) -> mlmesh.TuneResult:
    return mlmesh.tune(
        parabola,
        {"x": search.int(1, 4), "on": search.categorical([True, False]), "shift": [1, None]},
        name="tune-parabola",
        objective_metric_name="loss",
        objective_type="minimize",
        additional_metric_names=["accuracy"],
        algorithm_name="grid",
        max_trial_count=8,
        parallel_trial_count=2,
        max_failed_trial_count=0,
        env_per_trial={"COLOUR": "$blue ${trialParameters.x}"},
        resources_per_trial={"memory": "1Gi"},
        data_dir=mesh.data_dir,
    )


def test_the_best_is_found(tuned: mlmesh.TuneResult) -> None:
    assert tuned.state == "Succeeded"
    assert tuned.best_parameters == {"x": 3, "on": True}
    assert (tuned.best_value, tuned.best_metrics) == (0.0, {"loss": 0.0, "accuracy": 1.0})
    trials = tuned.trials
    assert len(trials) == 8 and {trial["state"] for trial in trials} == {"Succeeded"}
    for trial in trials:
        assert trial["value"] == abs(trial["parameters"]["x"] - 3) + (0 if trial["parameters"]["on"] else 0.5)
        assert trial["completion_time"] >= trial["start_time"]
    best = next(trial for trial in trials if trial["name"] == tuned.best_trial)
    assert best["parameters"] == tuned.best_parameters
    assert "best value 0.0 with {'x': 3, 'on': True}" in repr(tuned)


def test_its_report_is_a_page(tuned: mlmesh.TuneResult, tmp_path: Path) -> None:
    text = tuned.report(tmp_path / "report.html")
    assert text.startswith("<!DOCTYPE html>") and "Intermediate values" in text and "tune-parabola-8" in text
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    got = httpx.get(f"{tuned.ingress}/katib/v1/namespaces/default/experiments/tune-parabola/report")
    assert (
        got.headers["content-type"] == "text/html; charset=utf-8" and got.headers["x-content-type-options"] == "nosniff"
    )
    assert got.headers["content-security-policy"].startswith("default-src 'none'")
    assert httpx.get(f"{tuned.ingress}/katib/v1/namespaces/default/experiments/none/report").status_code == 404


def test_an_experiment_that_fails_says_why(mesh: RunningMesh) -> None:
    with pytest.raises(mlmesh.TuneError) as failed:
        mlmesh.tune(breaks, {"x": search.double(2, 2)}, max_trial_count=1, ingress=mesh.ingress)
    said = str(failed.value)
    assert "experiment breaks-" in said and "RuntimeError: I broke at 2.0" in said
    assert 'raise RuntimeError(f"I broke' in said, "the line of the function"
    assert failed.value.result is not None and failed.value.result.trials[0]["state"] == "Failed"


def test_what_is_wrong_is_said_before_anything_runs(mesh: RunningMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLMESH_INGRESS", mesh.ingress)
    space = {"x": search.double(0, 1)}
    with pytest.raises(ValueError, match=r"nothing\(\) uses math"):
        mlmesh.tune(nothing, space)
    with pytest.raises(mlmesh.TuneError, match=r"feasibleSpace\.min"):
        mlmesh.tune(breaks, {"x": search.double(1, 0)})
    with pytest.raises(mlmesh.TuneError, match="unknown algorithm name no-such"):
        mlmesh.tune(breaks, space, algorithm_name="no-such")
    with pytest.raises(ValueError, match="no parameter"):
        mlmesh.tune(breaks, {"x": 3})
    with pytest.raises(ValueError, match="such as JSON has them"):
        mlmesh.tune(breaks, {**space, "model": object()})
    with pytest.raises(ValueError, match="'train loss' is no name of a metric"):
        mlmesh.tune(breaks, space, objective_metric_name="train loss")
    monkeypatch.setenv("MLMESH_INGRESS", "http://127.0.0.1:9")
    with pytest.raises(mlmesh.TuneError, match="nothing answers"):
        mlmesh.tune(breaks, space)


def test_without_a_mesh(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLMESH_INGRESS", raising=False)
    with pytest.raises(mlmesh.TuneError, match=r"no mesh runs on .*; start one with: mlmesh up"):
        mlmesh.tune(breaks, {"x": search.double(0, 1)}, data_dir=tmp_path)


def test_a_search_that_is_not_waited_for(mesh: RunningMesh) -> None:
    def waits(parameters: dict[str, Any]) -> float:
        import time

        time.sleep(parameters["seconds"])
        return parameters["x"]

    running = mlmesh.tune(
        waits, {"x": search.int(1, 2), "seconds": 60}, max_trial_count=2, data_dir=mesh.data_dir, wait=False
    )
    assert running.state in {"Created", "Running"} and running.best_value is None and running.best_parameters == {}
    with pytest.raises(TimeoutError, match="it goes on"):
        running.wait(timeout=0.2)
    running.delete()
    with pytest.raises(mlmesh.TuneError, match="not found"):
        running.state  # noqa: B018


def test_the_example_finds_a_model(mesh: RunningMesh, tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "examples" / "tuning" / "function.py"
    report = tmp_path / "report.html"
    done = subprocess.run(
        [sys.executable, str(example), "--trials", "6", "--images", "200", "--report", str(report)],
        env={**os.environ, "MLMESH_INGRESS": mesh.ingress},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    best, model, _ = done.stdout.splitlines()
    accuracy, _, parameters = best.removeprefix("best accuracy ").partition(" with ")
    chosen = ast.literal_eval(parameters)
    path = Path(unquote(urlsplit(model.removeprefix("its model: ")).path)) / "model.joblib"
    found = joblib.load(path)
    assert (found.C, found.gamma, found.kernel) == (chosen["C"], chosen["gamma"], chosen["kernel"])
    images, labels = load_digits(return_X_y=True)
    again = cross_val_score(clone(found), images[:200] / 16, labels[:200], cv=3).mean()
    assert float(accuracy) == pytest.approx(again, abs=1e-4)
    assert "Parallel coordinates" in report.read_text(encoding="utf-8")
