"""What the tests of the commands share: a pipeline, and a run of it that has ended."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
from mlmesh.cli.app import app
from mlmesh.compiling import compile_file
from support.mesh import RunningMesh
from typer.testing import CliRunner

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


STEPS = '''
"""Rows, counted in a loop; one iteration may fail, and one step succeeds only when it is tried again."""
from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output


@dsl.component
def make(rows: int, made: Output[Dataset], seconds: float = 0.0):
    import time
    print("making", rows)
    time.sleep(seconds)
    with open(made.path, "w") as file:
        file.write("row\\n" * rows)


@dsl.component
def count(made: Input[Dataset], factor: float, bad: int, metrics: Output[Metrics]) -> float:
    with open(made.path) as file:
        number = len(file.readlines())
    print("counting with", factor)
    if factor == bad:
        raise ValueError(f"factor {factor} is bad")
    metrics.log_metric("product", number * factor)
    return number * factor


@dsl.component
def shaky() -> str:
    import os
    import pathlib
    mark = pathlib.Path.cwd().parent / "tried"
    print("tried" if mark.exists() else "first")
    if not mark.exists():
        mark.touch()
        raise RuntimeError("not yet")
    return "done"


@dsl.pipeline(name="cli-steps")
def steps(rows: int = 2, bad: int = 9, seconds: float = 0.0):
    made = make(rows=rows, seconds=seconds).outputs["made"]
    with dsl.ParallelFor([float(n) for n in range(12)]) as factor:
        count(made=made, factor=factor, bad=bad)
    shaky().set_retry(3).set_caching_options(False)


@dsl.pipeline
def another():
    make(rows=1)
'''


@pytest.fixture(scope="session")
def steps_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steps") / "cli_steps.py"
    path.write_text(STEPS)
    return path


@pytest.fixture(scope="session")
def steps_yaml(steps_file: Path) -> str:
    path = steps_file.with_suffix(".yaml")
    path.write_text(compile_file(steps_file, "steps"))
    return str(path)


@pytest.fixture(scope="session")
def quick(mesh: RunningMesh) -> Command:
    """Runs a command of mlmesh against the mesh, in this process: many times as quick as in one of its own."""

    def run(*arguments: str, **options: Any) -> CompletedProcess[str]:
        done = CliRunner().invoke(app, [*arguments, "--data-dir", str(mesh.data_dir)], **options)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def failed_run(quick: Command, steps_yaml: str) -> CompletedProcess[str]:
    """A run in which one of twelve iterations failed, as it was shown; `shaky` needed two attempts."""
    return quick("run", steps_yaml, "-p", "bad=3", "--name", "steps", "--watch")
