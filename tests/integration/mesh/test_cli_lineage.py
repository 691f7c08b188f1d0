"""`mlmesh lineage`, against a whole mesh."""

import json
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import pytest

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def artifacts(ended_run: dict[str, Any]) -> dict[str, str]:
    """Ids of the artifacts of the run, by name."""
    return {
        name: outputs["artifact_ids"][0]
        for task in ended_run["run_details"]["task_details"]
        for name, outputs in task["outputs"].items()
        if "artifact_ids" in outputs
    }


def test_where_an_artifact_comes_from(mlmesh: Command, ended_run: dict[str, Any], artifacts: dict[str, str]) -> None:
    done = mlmesh("lineage", artifacts["counted"])
    assert done.returncode == 0, done.stderr
    lines = [line.strip(" │├└─") for line in done.stdout.splitlines()]
    starts = [f"counted  system.Dataset  #{artifacts['counted']}", "by count", "made  system.Dataset", "by make"]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 4, done.stdout
    assert "rows=4" in lines[2] and f"run {ended_run['run_id'][:8]}" in lines[1]


def test_what_was_made_of_it(mlmesh: Command, artifacts: dict[str, str]) -> None:
    done = mlmesh("lineage", f"#{artifacts['made']}", "--direction", "downstream")
    lines = [line.strip(" │├└─") for line in done.stdout.splitlines()]
    starts = ["made  system.Dataset", "used by count", f"counted  system.Dataset  #{artifacts['counted']}"]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 3, done.stdout
    both = mlmesh("lineage", artifacts["made"], "--direction", "both").stdout
    assert "by make" in both and "used by count" in both


def test_an_artifact_is_found_by_its_uri(mlmesh: Command, artifacts: dict[str, str]) -> None:
    graph = json.loads(mlmesh("lineage", artifacts["made"], "--json").stdout)
    uri = next(node["uri"] for node in graph["nodes"] if node["kind"] == "artifact" and node["id"] == artifacts["made"])
    assert json.loads(mlmesh("lineage", uri, "--json").stdout)["artifact_id"] == artifacts["made"]


def test_an_unknown_artifact(mlmesh: Command) -> None:
    for artifact in ("999999999", "no-such-name"):
        done = mlmesh("lineage", artifact)
        assert done.returncode == 1 and "not found" in done.stderr and "mlmesh runs RUN_ID" in done.stderr
    assert mlmesh("lineage", "1", "--depth", "0").returncode == 2
