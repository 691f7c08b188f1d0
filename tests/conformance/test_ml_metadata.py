"""The stock ml-metadata client, and MLMD's own store as the judge: what it answers, we answer."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.mlmesh.metadata.v1 import retention_pb2_grpc, tombstone_pb2
from sqlalchemy import make_url

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs" / "mlmd" / "bin" / "python"
SCENARIOS = Path(__file__).parent / "mlmd" / "scenarios.py"

pytestmark = pytest.mark.conformance


def run_scenarios(target: str, *only: str) -> dict[str, dict[str, Any]]:
    assert PYTHON.exists(), "the stock client is not installed: make clients"
    done = subprocess.run(
        [str(PYTHON), str(SCENARIOS), target, *only], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """MLMD's own answers, and the database that it wrote."""
    database = tmp_path_factory.mktemp("mlmd") / "mlmd.db"
    return database, run_scenarios(f"sqlite:{database}")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metadata")


@pytest.fixture(scope="module")
def ours(data_dir: Path) -> Iterator[dict[str, dict[str, Any]]]:
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", data_dir) as service:
        yield run_scenarios(f"grpc:{service.grpc}")


def _comparable(answer: Any) -> Any:
    """Leaves out an error's words, which are each store's own; its class is what clients act on."""
    return {"error": answer["error"]} if isinstance(answer, dict) and "error" in answer else answer


NAMES = ["types", "nodes", "links", "put_execution", "subgraph", "masks", "times", "paging", "lineage"]


@pytest.mark.parametrize("scenario", NAMES)
def test_answers_as_mlmd_does(
    scenario: str, theirs: tuple[Path, dict[str, dict[str, Any]]], ours: dict[str, dict[str, Any]]
) -> None:
    expected = {step: _comparable(answer) for step, answer in theirs[1][scenario].items()}
    got = {step: _comparable(answer) for step, answer in ours[scenario].items()}
    assert got == expected


def test_filters_find_what_mlmd_finds(tmp_path: Path) -> None:
    """In a store of their own: the queries name ids."""
    theirs = run_scenarios(f"sqlite:{tmp_path / 'mlmd.db'}", "filters")["filters"]
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path / "ours") as service:
        ours = run_scenarios(f"grpc:{service.grpc}", "filters")["filters"]
    assert len(theirs) > 150 and sum(1 for answer in theirs.values() if answer and "error" not in answer) > 80
    different = {q: (theirs[q], ours[q]) for q in theirs if _comparable(theirs[q]) != _comparable(ours[q])}
    assert not different


def test_every_scenario_is_compared(theirs: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    assert set(theirs[1]) == set(NAMES)
    assert sum(len(steps) for steps in theirs[1].values()) > 150


def test_errors_say_what_to_mend(ours: dict[str, dict[str, Any]]) -> None:
    for steps in ours.values():
        for step, answer in steps.items():
            if isinstance(answer, dict) and "error" in answer:
                assert answer["message"], step
                assert "Traceback" not in answer["message"] and "sqlite" not in answer["message"].lower(), step


def _read_all(target: str) -> dict[str, Any]:
    return run_scenarios(target, "contents")["contents"]


def test_a_database_of_mlmds_opens_as_it_is(theirs: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path) -> None:
    expected = _read_all(f"sqlite:{theirs[0]}")
    url = f"sqlite:///{theirs[0]}"
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, {"DATABASE_URL": url}) as service:
        assert _read_all(f"grpc:{service.grpc}") == expected
    assert len(expected["artifacts"]) > 20


def test_mlmd_opens_a_database_of_ours(ours: dict[str, dict[str, Any]], data_dir: Path, tmp_path: Path) -> None:
    """Tombstones among the rest."""
    copy = tmp_path / "copy.db"
    source = sqlite3.connect(data_dir / "metadata" / "metadata.db")
    target = sqlite3.connect(copy)
    with source, target:
        source.backup(target)
    source.close()
    target.close()
    settings = {"DATABASE_URL": f"sqlite:///{copy}"}
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, settings) as deleting:
        stub = retention_pb2_grpc.RetentionServiceStub(deleting.channel())
        ids: dict[str, Any] = {"artifact_ids": [1, 2, 3], "execution_ids": [1, 2], "context_ids": [1]}
        assert len(stub.DeleteNodes(tombstone_pb2.DeleteNodesRequest(**ids)).tombstones) == 6
    read = _read_all(f"sqlite:{copy}")
    assert len(read["artifacts"]) > 20 and str(read["artifacts"]).count("mlmesh_deleted") == 3
    with ServiceProcess(
        "mlmesh_metadata", "MLMESH_METADATA_", tmp_path, {"DATABASE_URL": f"sqlite:///{copy}"}
    ) as again:
        assert _read_all(f"grpc:{again.grpc}") == read


WRITERS = ("put_execution", "subgraph", "links")


def _target(url: str) -> str:
    """Names a server's database to the stock client."""
    parts = make_url(url)
    kind = "postgresql" if parts.get_backend_name() == "postgresql" else "mysql"
    return f"{kind}:127.0.0.1:{parts.port}:{parts.database}:{parts.username}"


@pytest.mark.parametrize("server", ["postgresql_server", "mariadb_server"])
def test_a_servers_database_of_mlmds_opens_as_it_is(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(server).make_database()
    run_scenarios(_target(url), *WRITERS)
    expected = _read_all(_target(url))
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, {"DATABASE_URL": url}) as service:
        assert _read_all(f"grpc:{service.grpc}") == expected
        run_scenarios(f"grpc:{service.grpc}", "masks")
        after = _read_all(f"grpc:{service.grpc}")
    assert _read_all(_target(url)) == after and after != expected


@pytest.mark.parametrize("server", ["postgresql_server", "mariadb_server"])
def test_mlmd_opens_a_servers_database_of_ours(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue(server).make_database()
    with ServiceProcess("mlmesh_metadata", "MLMESH_METADATA_", tmp_path, {"DATABASE_URL": url}) as service:
        run_scenarios(f"grpc:{service.grpc}", *WRITERS, "types")
        expected = _read_all(f"grpc:{service.grpc}")
    assert _read_all(_target(url)) == expected and len(expected["artifacts"]) > 5
