"""The stock `kfp` command line: every command that talks to a server, through the ingress."""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from kfp import compiler, dsl
from kfp.cli import cli, experiment, pipeline, recurring_run, run

pytestmark = pytest.mark.conformance


@dsl.component
def say(text: str) -> str:
    if text == "fail":
        raise ValueError("told to fail")
    return text


@dsl.pipeline(name="says")
def says(text: str = "hello", number: int = 1):
    say(text=text)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cli") / "says.yaml"
    compiler.Compiler().compile(says, str(path))
    return str(path)


class _Kfp:
    """Runs `kfp` in this process: that saves a second of imports for each command."""

    def __init__(self, ingress: str) -> None:
        self._ingress = ingress
        self.used: set[tuple[str, str]] = set()

    def __call__(self, *arguments: str, output: str = "json", given: str | None = None, fails: bool = False) -> Any:
        self.used.add(arguments[:2])
        options = ["--endpoint", self._ingress, "--output", output]
        done = CliRunner(mix_stderr=False) if _mixes() else CliRunner()
        result = done.invoke(cli.cli, [*options, *arguments], obj={}, input=given)
        if fails:
            assert result.exit_code != 0, result.output
            return str(result.exception or result.output)
        assert result.exit_code == 0, (result.output, result.exception)
        if output == "table":
            return [line.split("  ") for line in result.stdout.splitlines() if line.strip()]
        begin = re.search(r'^[\[{"]', result.stdout, re.MULTILINE)  # after questions and links
        assert begin, result.stdout
        found, _ = json.JSONDecoder().raw_decode(result.stdout[begin.start() :])
        return found


def _mixes() -> bool:
    return "mix_stderr" in CliRunner.__init__.__code__.co_varnames


@pytest.fixture(scope="module")
def kfp(mesh):
    return _Kfp(mesh.ingress)


def _name(what: str) -> str:
    return f"{what} {uuid.uuid4()}"


def _cells(rows: list[list[str]]) -> list[dict[str, str]]:
    header = [cell.strip() for cell in rows[0] if cell.strip()]
    return [dict(zip(header, [cell.strip() for cell in row if cell.strip()], strict=True)) for row in rows[1:]]


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def test_experiments(kfp):
    name = _name("cli")
    made = kfp("experiment", "create", name, "--description", "why")
    assert (made["display_name"], made["description"]) == (name, "why")
    ident = made["experiment_id"]
    assert kfp("experiment", "get", ident) == made
    (listed,) = kfp("experiments", "list", "--max-size", "5", "--sort-by", "name", "--filter", _equals("name", name))
    assert listed == made
    (row,) = _cells(kfp("experiment", "list", "--filter", _equals("name", name), output="table"))
    assert (row["ID"], row["NAME"], row["STORAGE STATE"]) == (ident, name, "AVAILABLE")
    assert kfp("experiment", "archive", "--experiment-id", ident)["storage_state"] == "ARCHIVED"
    assert kfp("experiment", "unarchive", "--experiment-name", name)["storage_state"] == "AVAILABLE"
    assert kfp("experiment", "delete", ident, given="y\n") == ident
    assert "404" in kfp("experiment", "get", ident, fails=True)
    assert "sort_by" in kfp("experiment", "list", "--sort-by", "nope", fails=True)
    assert kfp("experiment", "list", "--filter", _equals("name", name)) == []


def test_pipelines(kfp, package):
    name = _name("cli")
    made = kfp("pipeline", "create", "--pipeline-name", name, "--description", "why", package)
    ident = made["pipeline_id"]
    assert kfp("pipeline", "get", ident) == made
    assert kfp("pipeline", "list", "--filter", _equals("name", name)) == [made]
    (row,) = _cells(kfp("pipeline", "list", "--filter", _equals("name", name), output="table"))
    assert (row["ID"], row["NAME"]) == (ident, name)
    second = kfp("pipeline", "create-version", package, "-v", "second", "-p", ident, "-d", "later")
    third = kfp("pipeline", "create-version", package, "--pipeline-version", "third", "--pipeline-name", name)
    assert [second["description"], third["pipeline_id"]] == ["later", ident]
    assert "409" in kfp("pipeline", "create-version", package, "-v", "third", "-p", ident, fails=True)
    listed = kfp("pipeline", "list-versions", ident, "--max-size", "2")
    assert [one["display_name"] for one in listed] == ["third", "second"]
    rows = _cells(kfp("pipeline", "list-versions", ident, "--sort-by", "created_at", output="table"))
    assert [(row["NAME"], row["PARENT ID"]) for row in rows] == [(name, ident), ("second", ident), ("third", ident)]
    got = kfp("pipeline", "get-version", ident, second["pipeline_version_id"])
    assert got["pipeline_spec"]["pipelineInfo"]["name"] == "says"
    assert "400" in kfp("pipeline", "delete", ident, given="y\n", fails=True)
    for row in rows:
        assert kfp("pipeline", "delete-version", ident, row["ID"], given="y\n") == row["ID"]
    assert kfp("pipeline", "delete", ident, given="y\n") == ident
    assert kfp("pipeline", "upload", "-p", name, package)["display_name"] == name  # their old names
    ident = kfp("pipeline", "list", "--filter", _equals("name", name))[0]["pipeline_id"]
    assert kfp("pipeline", "upload-version", package, "-v", "v", "-p", ident)["display_name"] == "v"


def test_runs(kfp, package, monkeypatch):
    shorter = SimpleNamespace(sleep=lambda _: time.sleep(0.05))
    monkeypatch.setattr("kfp.client.client.time", shorter)  # --timeout looks every 5 s
    experiment_name = _name("cli")
    made = kfp("run", "create", "-e", experiment_name, "-r", "first", "-f", package, "-t", "60", "text=abc", "number=2")
    assert (made["display_name"], made["state"]) == ("first", "SUCCEEDED")
    assert made["runtime_config"]["parameters"] == {"text": "abc", "number": 2}
    ident = made["run_id"]
    assert kfp("run", "get", ident)["state"] == "SUCCEEDED"
    failed = kfp("run", "create", "-e", experiment_name, "-f", package, "-t", "60", "text=fail")
    assert failed["state"] == "FAILED" and "ValueError: told to fail" in failed["error"]["message"]
    rows = _cells(kfp("run", "list", "-e", made["experiment_id"], output="table"))
    assert [(row["ID"], row["STATE"]) for row in rows] == [(failed["run_id"], "FAILED"), (ident, "SUCCEEDED")]
    (found,) = kfp("run", "list", "-e", made["experiment_id"], "--filter", _equals("state", "FAILED"), "-m", "1")
    assert found["run_id"] == failed["run_id"]
    assert kfp("run", "archive", ident)["storage_state"] == "ARCHIVED"
    assert kfp("run", "unarchive", ident)["storage_state"] == "AVAILABLE"
    assert kfp("run", "delete", ident, given="y\n") == ident
    assert "404" in kfp("run", "get", ident, fails=True)
    assert "number" in kfp("run", "create", "-e", experiment_name, "-f", package, "number=many", fails=True)
    pipeline_name = _name("cli")
    version = kfp("pipeline", "create", "-p", pipeline_name, package)
    (version,) = kfp("pipeline", "list-versions", version["pipeline_id"])
    options = ["-n", pipeline_name, "-v", version["pipeline_version_id"]]
    submitted = kfp("run", "submit", "-e", experiment_name, *options)  # its old name
    assert submitted["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]


def test_recurring_runs(kfp, package):
    experiment_name = _name("cli")
    common = ["--experiment-name", experiment_name, "--pipeline-package-path", package, "--max-concurrency", "2"]
    made = kfp(
        "recurring-run",
        "create",
        *common,
        "--cron-expression=0 0 3 * * *",
        "--job-name=nightly",
        "--description=why",
        "--no-catchup",
        "--disabled",
        "--start-time=2030-01-01T00:00:00Z",
        "--end-time=2031-01-01T00:00:00Z",
        "text=a=b",
    )
    assert (made["display_name"], made["status"], made["no_catchup"]) == ("nightly", "DISABLED", True)
    assert made["runtime_config"]["parameters"] == {"text": "a=b"}
    ident, experiment_id = made["recurring_run_id"], made["experiment_id"]
    other = kfp("recurring-run", "create", *common, "--interval-second=3600", "--job-name=hourly", "--disabled")
    assert other["trigger"]["periodic_schedule"]["interval_second"] == "3600"
    rows = _cells(kfp("recurring-runs", "list", "-e", experiment_id, "--sort-by", "name", output="table"))
    assert [(row["NAME"], row["STATUS"]) for row in rows] == [("hourly", "DISABLED"), ("nightly", "DISABLED")]
    assert kfp("recurring-run", "get", ident)["description"] == "why"
    assert kfp("recurring-run", "enable", ident)["status"] == "ENABLED"
    assert kfp("recurring-run", "disable", ident)["status"] == "DISABLED"
    assert kfp("recurring-run", "delete", ident, given="y\n") == ident
    assert "404" in kfp("recurring-run", "get", ident, fails=True)
    assert "cron" in kfp("recurring-run", "create", *common, "--cron-expression=no", "--job-name=x", fails=True)


def test_the_program_itself_watches_a_run_and_says_what_went_wrong(mesh, package):
    program = str(Path(sys.executable).with_name("kfp"))
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}

    def kfp(*arguments: str) -> "subprocess.Popen[str]":
        command = [program, "--endpoint", mesh.ingress, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]

    started = time.monotonic()
    watching = kfp("run", "create", "-e", _name("cli"), "-f", package, "--watch", "text=watched")
    missing = kfp("run", "get", "none")
    out, errors = watching.communicate(timeout=60)
    assert watching.returncode == 0, errors
    assert "Run is finished with state SUCCEEDED." in out
    _, errors = missing.communicate(timeout=60)
    assert missing.returncode == 1 and "run 'none' not found" in errors and "Traceback" not in errors
    assert time.monotonic() - started < 60


def test_no_command_is_left_out(kfp, request):
    tests = {name for name in globals() if name.startswith("test_")}
    if {item.originalname for item in request.session.items if item.path == request.path} != tests:
        pytest.skip("only some of the tests of this file were chosen")
    groups: dict[str, click.Group] = {
        "experiment": experiment.experiment,
        "pipeline": pipeline.pipeline,
        "run": run.run,
        "recurring-run": recurring_run.recurring_run,
    }
    assert {group.name for group in cli.COMMANDS["client"]} == {group.name for group in groups.values()}
    every = {(name, command) for name, group in groups.items() for command in group.commands}
    used = {(group.removesuffix("s"), command) for group, command in kfp.used}
    assert every - used == set()
