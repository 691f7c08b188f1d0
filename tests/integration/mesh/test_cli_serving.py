"""`mlmesh deploy` and `mlmesh predict`, against a whole mesh."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import joblib
import pytest
import yaml
from click.testing import Result
from mlmesh.cli.app import app
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from support.mesh import RunningMesh
from typer.testing import CliRunner

Command = Callable[..., CompletedProcess[str]]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


def manifest(name: str, folder: Path, method: str = "predict") -> str:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": folder.as_uri(), "method": method}
    return yaml.safe_dump(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name},
            "spec": {"predictor": {"model": model}},
        }
    )


@pytest.fixture(scope="module")
def folder(mesh: RunningMesh) -> Path:
    """Holds a model, and manifests of it."""
    made = mesh.data_dir / "artifacts" / "cli-iris"
    made.mkdir(parents=True)
    data = load_iris()
    joblib.dump(LogisticRegression(max_iter=1000).fit(data.data, data.target), made / "model.joblib")
    (made / "iris.yaml").write_text(manifest("cli-iris", made))
    return made


@pytest.fixture(scope="module")
def deployed(mlmesh: Command, folder: Path) -> CompletedProcess[str]:
    return mlmesh("deploy", str(folder / "iris.yaml"))


def test_a_model_is_deployed_and_ready(mlmesh: Command, deployed: CompletedProcess[str]) -> None:
    assert deployed.returncode == 0, deployed.stderr
    assert "ready" in deployed.stdout and "mlmesh predict cli-iris INPUT" in deployed.stdout
    line = next(line for line in mlmesh("deploy").stdout.splitlines() if "cli-iris" in line)
    assert "True" in line and "/v2/models/cli-iris" in line


def labels(done: CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["outputs"][0]["data"]


def test_a_model_answers_rows_and_requests(mlmesh: Command, deployed: CompletedProcess[str], tmp_path: Path) -> None:
    tensor = {"name": "x", "datatype": "FP64", "shape": [2, 4], "data": [x for row in ROWS for x in row]}
    (tmp_path / "request.json").write_text(json.dumps({"inputs": [tensor]}))
    assert labels(mlmesh("predict", "cli-iris", json.dumps(ROWS), "--json")) == [0, 2]
    assert labels(mlmesh("predict", "cli-iris", str(tmp_path / "request.json"), "--json")) == [0, 2]
    assert labels(mlmesh("predict", "cli-iris", "-", "--json", input=json.dumps({"instances": ROWS}))) == [0, 2]
    table = mlmesh("predict", "cli-iris", json.dumps(ROWS)).stdout.splitlines()
    assert "INT64 [2]" in table[0] and [line.split() for line in table[1:]] == [["0", "0"], ["1", "2"]]


def test_a_changed_manifest_is_a_new_revision(
    mlmesh: Command, deployed: CompletedProcess[str], folder: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.yaml"
    changed.write_text(manifest("cli-iris", folder, "predict_proba"))
    found = json.loads(mlmesh("deploy", str(changed), "--json").stdout)
    assert found["status"]["latest_ready_revision"] == 2
    assert len(labels(mlmesh("predict", "cli-iris", json.dumps(ROWS[:1]), "--json"))) == 3
    assert "revision 3" in mlmesh("deploy", str(folder / "iris.yaml")).stdout


def test_a_canary_goes_through_the_ingress(mesh: RunningMesh, folder: Path, tmp_path: Path) -> None:
    """Every path of traffic, as Envoy transcodes it."""
    path = tmp_path / "canary.yaml"

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--ingress", mesh.ingress])

    path.write_text(manifest("cli-canary", folder))
    assert call("deploy", str(path)).exit_code == 0
    path.write_text(manifest("cli-canary", folder, "predict_proba"))
    rule = ("--header", "x-canary=yes:latest", "--shadow", "latest=5", "--sticky", "caller")
    for arguments, said in [
        (("deploy", str(path), "--canary", "10"), "cli-canary-00002 gets 10% of the requests"),
        (("traffic", "cli-canary", "1=60", "2=40", "--tag", "blue=1", *rule), "60%  cli-canary-00001  tag blue"),
        (("traffic", "cli-canary"), "header x-canary=yes → latest"),
        (("models", "cli-canary"), "cli-canary-00002  ready"),
        (("promote", "cli-canary"), "100%  cli-canary-00002"),
        (("rollback", "cli-canary"), "100%  cli-canary-00001"),
        (("models", "cli-canary", "--render", "knative"), "revisionName: cli-canary-00001"),
        (("models", "cli-canary", "--render", "kserve"), "canaryTrafficPercent: 0"),
        (("predict", "cli-canary", json.dumps(ROWS)), "INT64"),
    ]:
        done = call(*arguments)
        assert done.exit_code == 0 and said in done.stdout, (arguments, done.output)
    done = call("rollback", "cli-canary", "blue")
    assert done.exit_code == 1 and "see which there are with: mlmesh models cli-canary" in done.stderr


def test_a_model_that_cannot_be_loaded_ends_with_1(mlmesh: Command, folder: Path, tmp_path: Path) -> None:
    broken = folder.parent / "cli-broken"
    broken.mkdir()
    (broken / "model.joblib").write_bytes(b"no model")
    path = tmp_path / "broken.yaml"
    path.write_text(manifest("cli-broken", broken))
    done = mlmesh("deploy", str(path))
    assert done.returncode == 1, done.stdout
    assert "cli-broken could not be loaded" in done.stderr and "mlmesh logs serving" in done.stderr


def test_what_is_wrong_is_said(mlmesh: Command, deployed: CompletedProcess[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("apiVersion: x\nkind: InferenceService\nmetadata: {name: wrong}")
    for arguments, said in [
        (("deploy", str(path)), "manifest.apiVersion"),
        (("predict", "no-such-model", "[[1]]"), "mlmesh models"),
        (("predict", "cli-iris", "[[1, 2]]"), "shape: the model takes"),
        (("predict", "cli-iris", "no-such-file"), "neither a file nor JSON"),
    ]:
        done = mlmesh(*arguments)
        assert done.returncode == 1 and said in done.stderr, (arguments, done.stderr)
