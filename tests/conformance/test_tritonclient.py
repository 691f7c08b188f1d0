"""The stock tritonclient, over gRPC and HTTP, at the service's own doors and through the ingress."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from support.mesh import RunningMesh

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs" / "triton" / "bin" / "python"
SCENARIOS = Path(__file__).parent / "triton" / "scenarios.py"
FLOWERS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]])
STAGES = """
import numpy as np

NAMES = np.array(["setosa", "versicolor", "virginica"], dtype=object)

def halve(data: np.ndarray) -> np.ndarray:
    if (data < 0).any():
        raise ValueError("negative lengths")
    return data / 2.0

def label(probabilities: np.ndarray) -> dict:
    return {"label": NAMES[probabilities.argmax(axis=1)], "probabilities": probabilities}
"""

pytestmark = pytest.mark.conformance


def prepare(data_dir: Path, control: str) -> LogisticRegression:
    """Trains a model and makes the InferenceServices `iris` and `chained`."""
    data = load_iris()
    model = LogisticRegression(max_iter=1000).fit(data.data, data.target)
    folder = data_dir / "artifacts" / "triton-iris"
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    (folder / "stages.py").write_text(STAGES)
    uri = folder.as_uri()
    stages = {
        "preprocessor": {"python": {"class": "stages:halve", "storageUri": uri}},
        "postprocessor": {"python": {"class": "stages:label", "storageUri": uri}},
    }
    for name, spec, method in (("triton-iris", {}, "predict"), ("triton-chained", stages, "predict_proba")):
        predictor = {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri, "method": method}}
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name},
            "spec": {"predictor": predictor, **spec},
        }
        path = f"{control}/serving/v1/namespaces/default/inferenceservices"
        made = httpx.post(path, json={"manifest": manifest}, timeout=30)
        assert made.status_code == 200, made.text
        deadline = time.monotonic() + 20
        while not is_ready(httpx.get(f"{path}/{name}", timeout=30).json()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return model


def is_ready(service: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in service.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True"


@pytest.fixture(scope="module")
def model(mesh: RunningMesh) -> LogisticRegression:
    return prepare(mesh.data_dir, mesh.ingress)


def run(protocol: str, address: str) -> dict[str, Any]:
    assert PYTHON.exists(), "the stock client is not installed: make clients"
    command = [str(PYTHON), str(SCENARIOS), protocol, address, "triton-iris", "triton-chained"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module", params=["grpc", "http", "grpc through the ingress", "http through the ingress"])
def answers(request: pytest.FixtureRequest, mesh: RunningMesh, model: LogisticRegression) -> Iterator[Any]:
    protocol, _, way = request.param.partition(" ")
    if way:
        address = mesh.grpc
    else:
        own = mesh.service("serving")
        address = own.grpc if protocol == "grpc" else own.http.removeprefix("http://")
    yield protocol, run(protocol, address)


def test_health_and_metadata(answers: tuple[str, dict[str, Any]]) -> None:
    _, found = answers
    assert found["live"] and found["ready"] and found["model ready"]
    assert found["unknown model ready"] is False or "status" in found["unknown model ready"]
    assert {"name", "version"} <= set(found["server metadata"])
    assert found["model metadata"] == "triton-iris"


def test_predictions_are_the_models(answers: tuple[str, dict[str, Any]], model: LogisticRegression) -> None:
    _, found = answers
    expected = model.predict(FLOWERS).tolist()
    for step in ("infer", "wanted output", "parameters", "whole numbers", "still there", "loaded"):
        assert found[step] == expected, step
    assert found["one flower"] == expected[:1]
    assert found["async"] == [expected] * 8
    probabilities = model.predict_proba(FLOWERS)
    assert np.allclose(found["chained"], probabilities)
    names = load_iris().target_names
    assert found["BYTES come back"] == [str(names[i]) for i in probabilities.argmax(axis=1)]
    assert sorted(found["both outputs"]) == ["label", "probabilities"]
    assert found["request id"] == "my-id"


def test_what_one_protocol_has_alone(answers: tuple[str, dict[str, Any]], model: LogisticRegression) -> None:
    protocol, found = answers
    expected = model.predict(FLOWERS).tolist()
    if protocol == "http":
        assert found["JSON in, JSON out"] == expected
        assert found["compressed"]["status"] == "400" and "identity" in found["compressed"]["message"]
    else:
        assert found["stream"] == [expected, "error", expected]


# tritonclient gives gRPC's code, or HTTP's status.
NOT_FOUND = {"StatusCode.NOT_FOUND", "404"}
INVALID = {"StatusCode.INVALID_ARGUMENT", "400"}
UNAVAILABLE = {"StatusCode.UNAVAILABLE", "503"}


@pytest.mark.parametrize(
    ("step", "status", "said"),
    [
        ("unknown model", NOT_FOUND, "nothing"),
        ("unknown model metadata", NOT_FOUND, "nothing"),
        ("unknown version", NOT_FOUND, "99"),
        ("load unknown", NOT_FOUND, "nothing"),
        ("unknown output", INVALID, "nothing"),
        ("wrong width", INVALID, "4"),
        ("wrong rank", INVALID, "shape"),
        ("text for numbers", INVALID, "inputs[0]"),
        ("refused by the preprocessor", INVALID, "negative lengths"),
        ("no inputs", INVALID, "inputs"),
        ("unloaded", UNAVAILABLE, "triton-iris"),
    ],
)
def test_errors(answers: tuple[str, dict[str, Any]], step: str, status: set[str], said: str) -> None:
    error = answers[1][step]
    assert isinstance(error, dict) and error["status"] in status, error
    assert said in error["message"] and "Traceback" not in error["message"], error


def test_the_repository(answers: tuple[str, dict[str, Any]]) -> None:
    _, found = answers
    assert found["index names both"] == [True, True]
    assert found["unload"] is None and found["load"] is None
    assert found["unloaded is not ready"] is False or "status" in found["unloaded is not ready"]
    assert found["loaded is ready"] is True
