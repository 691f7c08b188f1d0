"""The command as such: quick to start, complete in its help, and completed by shells."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from mlmesh.cli.app import app
from typer.main import get_command
from typer.testing import CliRunner

SLOW = ("httpx", "grpc", "pydantic", "yaml", "kfp", "sqlalchemy", "markdown_it", "psutil", "jsonschema", "numpy")
COMMANDS = ("up", "down", "status", "logs", "doctor", "render", "run", "runs", "tune", "deploy", "predict", "lineage")
COMMANDS += ("retry", "terminate", "rerun", "diff", "debug", "cache", "models", "traffic", "promote", "rollback")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlmesh", *arguments]
    env = {**os.environ, "COLUMNS": "150", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_the_help_names_every_command_and_is_quick() -> None:
    """Quick is what is not imported; a clock would say more of the machine than of the command."""
    code = (
        "import json, sys\n"
        "sys.argv = ['mlmesh', '--help']\n"
        "from mlmesh.cli import main\n"
        "try:\n    main()\nfinally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    first_words = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert set(COMMANDS) <= first_words, done.stdout
    loaded = json.loads(done.stderr.splitlines()[-1])
    assert not [name for name in loaded if name.split(".")[0] in SLOW]


def _leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that does something, those of groups included."""
    parts = getattr(command, "commands", None)
    if parts is None:
        yield words
    for word, part in (parts or {}).items():
        yield from _leaves(part, (*words, word))


@pytest.mark.parametrize("words", list(_leaves(get_command(app))), ids=" ".join)
def test_every_command_has_help_and_json(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0 and "--help" in done.stdout, done.stderr
    assert "--json" in done.stdout or words == ("lineage", "export")  # what it writes is JSON in any case


def test_the_walk_over_commands_finds_those_of_groups() -> None:
    assert {("up",), ("lineage", "show"), ("lineage", "export")} <= set(_leaves(get_command(app)))


def test_shells_complete_commands_and_options() -> None:
    def complete(words: str, number: int) -> set[str]:
        done = run(_MLMESH_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(number))
        return set(done.stdout.split())

    assert complete("mlmesh r", 1) == {"render", "rerun", "retry", "rollback", "run", "runs"}
    assert {"--param", "--params-file", "--pdb", "--pipeline"} <= complete("mlmesh run --p", 2)
    assert complete("mlmesh lineage 1 --direction ", 4) == {"upstream", "downstream", "both"}
    assert {"list", "watch", "trials", "edit", "delete"} <= complete("mlmesh tune ", 2)


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["run"], ["up", "--nothing"], ["up", "--port", "70000"], ["runs", "-w"]]
)
def test_a_wrong_call_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
