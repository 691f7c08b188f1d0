"""What the tests of the commands share: a pipeline, and a run of it that has ended."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
from mlmesh.compiling import compile_file
from support.mesh import RunningMesh

PIPELINE = '''
"""Two steps: rows are made, then counted."""
from kfp import dsl
from kfp.dsl import Dataset, Input, Output


@dsl.component
def make(rows: int, word: str, made: Output[Dataset]):
    if rows < 0:
        raise ValueError("rows must not be negative")
    with open(made.path, "w") as file:
        file.write(f"{word}\\n" * rows)
    made.metadata["rows"] = rows


@dsl.component
def count(made: Input[Dataset], counted: Output[Dataset]) -> int:
    with open(made.path) as file:
        number = len(file.readlines())
    with open(counted.path, "w") as file:
        file.write(str(number))
    print("counted", number)
    return number


@dsl.pipeline(name="cli-rows")
def rows_pipeline(rows: int = 3, word: str = "row"):
    count(made=make(rows=rows, word=word).outputs["made"])


print("this file prints when it is loaded")
'''

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def mlmesh(mesh: RunningMesh) -> Command:
    """Runs a command of mlmesh against the mesh."""

    def run(*arguments: str, **options: Any) -> CompletedProcess[str]:
        done = mesh.command(*arguments, "--data-dir", str(mesh.data_dir), **options)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def pipeline_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline") / "rows.py"
    path.write_text(PIPELINE)
    return path


@pytest.fixture(scope="session")
def compiled_file(pipeline_file: Path) -> Path:
    path = pipeline_file.with_suffix(".yaml")
    path.write_text(compile_file(pipeline_file))
    return path


@pytest.fixture(scope="session")
def ended_run(mesh: RunningMesh, mlmesh: Command, pipeline_file: Path) -> dict[str, Any]:
    """A run that has succeeded, with `rows=4`; its lineage has been written."""
    done = mlmesh("run", str(pipeline_file), "--param", "rows=4", "--watch", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    ended: dict[str, Any] = json.loads(done.stdout)

    def whole() -> dict[str, Any] | None:
        found: dict[str, Any] = httpx.get(f"{mesh.ingress}/apis/v2beta1/runs/{ended['run_id']}", timeout=30).json()
        outputs = [one for task in found["run_details"]["task_details"] for one in task["outputs"].values()]
        return found if all("artifact_ids" in one for one in outputs) else None

    found: dict[str, Any] = mesh.wait(whole)
    assert found["state"] == ended["state"]
    return found
