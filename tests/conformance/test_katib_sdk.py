"""Katib's own Python SDK, `kubeflow-katib`: `report_metrics` as a trial with the collector Push calls it."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs" / "katib" / "bin" / "python"
SCENARIOS = Path(__file__).parent / "katib" / "scenarios.py"

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ServiceProcess("mlmesh_katib", "MLMESH_KATIB_", tmp_path_factory.mktemp("katib"), {"PRELOAD": ""}) as process:
        yield process.grpc


def run_scenarios(address: str, **variables: str) -> dict[str, Any]:
    assert PYTHON.exists(), "the stock client is not installed: make clients"
    environment = {"PATH": os.environ.get("PATH", os.defpath), **variables}
    done = subprocess.run(
        [str(PYTHON), str(SCENARIOS), address], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def test_what_a_trial_reports_is_kept(address: str) -> None:
    answers = run_scenarios(address, KATIB_TRIAL_NAME="pushed-1")
    assert (answers["first"], answers["text"], answers["infinite"]) == (None, None, None)
    assert answers["not a number"][0] == "ValueError"  # the client's own check
    assert answers["no name"][0] == "RuntimeError"
    assert "observation_log.metric_logs[0].metric.name" in answers["no name"][1]
    assert answers["no trial"] == ["ValueError", "The Trial name is not passed to environment variables"]
    with grpc.insecure_channel(address) as channel:
        request = api_pb2.GetObservationLogRequest(trial_name="pushed-1")
        logs = api_pb2_grpc.DBManagerStub(channel).GetObservationLog(request).observation_log.metric_logs
    assert sorted((log.metric.name, log.metric.value) for log in logs) == [
        ("accuracy", "0.75"),
        ("loss", "0.25"),
        ("loss", "0.5"),
        ("loss", "inf"),
    ]
