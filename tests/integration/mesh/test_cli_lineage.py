"""`mlmesh lineage`, against a whole mesh."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from support.mesh import RunningMesh

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


def test_artifacts_of_a_type_and_what_differs(mlmesh: Command, artifacts: dict[str, str]) -> None:
    listed = json.loads(mlmesh("lineage", "list", "system.Dataset", "--json").stdout)["artifacts"]
    assert {artifacts["made"], artifacts["counted"]} <= {node["id"] for node in listed}
    done = mlmesh("lineage", "compare", artifacts["made"], artifacts["counted"])
    assert done.returncode == 0 and "uri" in done.stdout and "executions" in done.stdout, done.stderr
    same = mlmesh("lineage", "compare", artifacts["made"], artifacts["made"])
    assert same.returncode == 0 and "nothing differs" in same.stdout


def test_the_graph_of_a_run(mlmesh: Command, ended_run: dict[str, Any], tmp_path: Path) -> None:
    done = mlmesh("lineage", "graph", ended_run["run_id"], "--type", "system.PipelineRun")
    assert done.returncode == 0, done.stderr
    assert "uses  made" in done.stdout and "makes counted" in done.stdout
    target = tmp_path / "run.svg"
    assert mlmesh("lineage", "graph", ended_run["run_id"], "-f", "svg", "-o", str(target)).returncode == 0
    assert "count" in "".join(ElementTree.parse(target).getroot().itertext())
    assert mlmesh("lineage", "graph", ended_run["run_id"], "-f", "dot").stdout.startswith("digraph")
    assert mlmesh("lineage", "graph", "no-such-run").returncode == 1


def test_what_has_been_run_before(mlmesh: Command, artifacts: dict[str, str]) -> None:
    hit = mlmesh("lineage", "seen", "system.ContainerExecution", "-i", artifacts["made"], "-p", "task_name=count")
    assert hit.returncode == 0 and "yes" in hit.stdout, hit.stdout + hit.stderr
    miss = mlmesh("lineage", "seen", "system.ContainerExecution", "-i", artifacts["made"], "-p", "task_name=other")
    assert miss.returncode == 1 and "PROPERTY_DIFFERS task_name" in miss.stdout
    assert mlmesh("lineage", "seen", "x", "-p", "no-equals-sign").returncode == 2


def test_contexts_are_recorded_and_found(mlmesh: Command, artifacts: dict[str, str]) -> None:
    done = mlmesh(
        "lineage", "record", "Change", "c-1", "--owner", "ann", "--commit", "abcdef12", "--artifact", artifacts["made"]
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(mlmesh("lineage", "contexts", "--commit", "abcd", "--json").stdout)["contexts"]
    assert [node["name"] for node in found] == ["c-1"] and found[0]["properties"]["owner"] == "ann"
    assert "c-1" in mlmesh("lineage", "contexts", "--owner", "ann").stdout


def test_marked_and_unmarked(mlmesh: Command, artifacts: dict[str, str]) -> None:
    tried = mlmesh("lineage", "mark", artifacts["made"], "--reason", "bad labels", "--dry-run")
    # Runs of other tests may have taken it from the cache.
    assert re.search(r"would mark 2 artifacts and \d executions?", tried.stdout), tried.stderr
    mark = json.loads(mlmesh("lineage", "mark", artifacts["made"], "--reason", "bad labels", "--json").stdout)
    assert "bad: bad labels" in mlmesh("lineage", "list", "system.Dataset").stdout
    assert "bad labels" in mlmesh("lineage", "marks").stdout
    assert mlmesh("lineage", "unmark", mark["name"].removeprefix("marks/")).returncode == 0
    assert "bad labels" not in mlmesh("lineage", "list", "system.Dataset").stdout


def test_exported_and_imported_again(mlmesh: Command, artifacts: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "all.jsonl"
    done = mlmesh("lineage", "export", "-o", str(target))
    assert done.returncode == 0 and len(target.read_text().splitlines()) > len(artifacts), done.stderr
    again = json.loads(mlmesh("lineage", "import", str(target), "--json").stdout)
    assert again["complete"] and not sum(again["created"].values()), again
    target.write_text("{}\n")
    refused = mlmesh("lineage", "import", str(target))
    assert refused.returncode == 1 and "line 1" in refused.stderr
    events = mlmesh("lineage", "export", "--format", "openlineage").stdout.splitlines()
    assert {json.loads(line)["eventType"] for line in events} <= {
        "COMPLETE",
        "START",
        "RUNNING",
        "FAIL",
        "ABORT",
        "OTHER",
    }


def test_found_by_words(mlmesh: Command, ended_run: dict[str, Any]) -> None:
    done = mlmesh("lineage", "search", ended_run["run_id"], "--kind", "context", "--json")
    assert ended_run["run_id"] in {node["name"] for node in json.loads(done.stdout)["nodes"]}, done.stderr


def test_deleted_by_hand_and_by_rules(mlmesh: Command, mesh: RunningMesh) -> None:
    with httpx.Client(base_url=mesh.ingress, timeout=20) as http:
        event = {
            "eventType": "COMPLETE",
            "eventTime": "2024-05-01T12:00:00Z",
            "producer": "https://example.com",
            "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json",
            "run": {"runId": "5f5e83fa-3480-44ff-99c5-ff943904e5e8"},
            "job": {"namespace": "n", "name": "j"},
            "outputs": [{"namespace": "file", "name": f"/data/{name}"} for name in ("one", "two", "three")],
        }
        assert http.post("/api/v1/lineage", json=event).is_success
        nodes = http.get("/metadata/v1/search", params={"query": "data", "kind": "artifact"}).json()["nodes"]
    made = {node["name"].rpartition("/")[2]: node for node in nodes if node["type"] == "openlineage.Dataset"}
    one, kind = made["one"]["id"], made["one"]["type"]
    tried = mlmesh("lineage", "delete", "artifact", one, "--dry-run")
    assert tried.returncode == 0 and "would be deleted" in tried.stdout, tried.stderr
    unasked = mlmesh("lineage", "delete", "artifact", one)
    assert unasked.returncode == 1 and "--yes" in unasked.stderr + unasked.stdout
    assert not json.loads(mlmesh("lineage", "deleted", "--json").stdout)["tombstones"]
    done = json.loads(mlmesh("lineage", "delete", "artifact", one, "-r", "GDPR", "--yes", "--json").stdout)
    assert [(node["node_id"], node["reason"]) for node in done["tombstones"]] == [(one, "GDPR")]
    assert "GDPR" in mlmesh("lineage", "deleted").stdout
    assert "deleted 20" in mlmesh("lineage", "show", one).stdout
    assert mlmesh("lineage", "delete", "artifact", "999999", "--yes").returncode == 1

    assert mlmesh("lineage", "retention", "set", "tidy", "--type", kind, "--older-than", "soon").returncode == 2
    made_rule = mlmesh("lineage", "retention", "set", "tidy", "--type", kind, "--keep-latest", "1")
    assert made_rule.returncode == 0 and "not among the 1 newest" in made_rule.stdout, made_rule.stderr
    assert "tidy" in mlmesh("lineage", "retention", "list").stdout
    planned = json.loads(mlmesh("lineage", "retention", "plan", "tidy", "--json").stdout)
    assert planned["node_count"] == len(planned["retention_items"]) > 0
    number = planned["name"].rpartition("/")[2]
    assert mlmesh("lineage", "retention", "apply", number).returncode == 1
    applied = mlmesh("lineage", "retention", "apply", number, "--yes")
    assert f"deleted {planned['node_count']} node" in applied.stdout, applied.stderr
    assert "deleted" in mlmesh("lineage", "retention", "show", number).stdout
    assert mlmesh("lineage", "retention", "remove", "tidy").returncode == 0
    assert mlmesh("lineage", "retention", "remove", "tidy").returncode == 1
