"""What tasks report: values that no database and no message can hold are refused in words."""

import json
from pathlib import Path

import pytest
from mlmesh_pipeline.engine.executor_io import BadOutput, digest_of, executor_input, read_output
from mlmesh_pipeline.engine.worker import last_exception
from mlmesh_pipeline.ir.document import parse
from mlmesh_pipeline.resources import Values

TYPES = {"number": "NUMBER_INTEGER", "text": "STRING", "items": "LIST", "about": "STRUCT"}
DOCUMENT = parse(
    {
        "pipelineInfo": {"name": "p"},
        "root": {"dag": {}},
        "components": {
            "c": {
                "executorLabel": "e",
                "outputDefinitions": {
                    "parameters": {name: {"parameterType": kind} for name, kind in TYPES.items()},
                    "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}},
                },
            }
        },
    }
)


def outputs_of(folder: Path, report: str) -> Values:
    component = DOCUMENT.component("c")
    given = executor_input(component, Values(), folder, (folder / "outputs").as_uri())
    place = Path(given["outputs"]["outputFile"])
    place.parent.mkdir(exist_ok=True)
    place.write_text(report)
    return read_output(component, given, folder, digest_of)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (f'{{"number": {10**400}}}', "too large a number"),
        ('{"text": "\\ud800"}', "not Unicode text"),
        ('{"items": [1, {"a": 1e999}]}', "finite number"),
        ('{"about": {"\\ud800": 1}}', "not Unicode text"),
    ],
)
def test_values_that_nothing_can_hold(tmp_path: Path, values: str, words: str) -> None:
    with pytest.raises(BadOutput, match=words):
        outputs_of(tmp_path, f'{{"parameterValues": {values}}}')


def test_metadata_that_nothing_can_hold(tmp_path: Path) -> None:
    report = '{"artifacts": {"model": {"artifacts": [{"name": "model", "metadata": {"score": 1e999}}]}}}'
    with pytest.raises(BadOutput, match="finite number"):
        outputs_of(tmp_path, report)


def test_values_of_all_kinds(tmp_path: Path) -> None:
    values = {"number": 2**80, "text": "a\0é", "items": [1.5, None, {"a": [True]}], "about": {"é": {}}}
    assert outputs_of(tmp_path, json.dumps({"parameterValues": values})).parameters == values


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["x", "ValueError: no", "bye"], "ValueError: no"),
        (["a.b.MyException"], "a.b.MyException"),
        (["Error: of a program", "  ValueError: x", "an Error: x"], ""),
        (["Error" * 100_000 + "!"], ""),
    ],
)
def test_the_exception_that_a_log_ends_with(lines: list[str], found: str) -> None:
    assert last_exception(lines) == found
