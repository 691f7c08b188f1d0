"""Placeholders of container components' commands."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh_pipeline.ir.commands import (
    AllowedCommands,
    BadCommand,
    CommandLine,
    check_command,
    fill_command,
    programs_of,
)

GIVEN: dict[str, Any] = {
    "inputs": {
        "parameterValues": {"text": "a b", "number": 3.0, "flag": True, "items": [1, "x"], "nothing": None},
        "artifacts": {
            "data": {"artifacts": [{"name": "d", "uri": "/data/d", "metadata": {"rows": 4, "kind": "csv"}}]},
            "none": {"artifacts": []},
        },
    },
    "outputs": {
        "parameters": {"count": {"outputFile": "/scratch/count"}},
        "artifacts": {"model": {"artifacts": [{"name": "model", "uri": "/out/model", "metadata": {}}]}},
        "outputFile": "/scratch/report.json",
    },
}
COMPONENT = SimpleNamespace(
    input_definitions=SimpleNamespace(
        parameters=dict.fromkeys(GIVEN["inputs"]["parameterValues"]), artifacts=dict.fromkeys(["data", "none"])
    ),
    output_definitions=SimpleNamespace(parameters={"count": None}, artifacts={"model": None}),
)
CONTEXT = {"pipeline_job_name": "the run"}


def filled(*words: str) -> list[str]:
    command = CommandLine(words)
    check_command(command, COMPONENT)
    return fill_command(command, GIVEN, CONTEXT)


def test_values_take_the_place_of_placeholders() -> None:
    words = {
        "plain": "plain",
        "{{$.inputs.parameters['text']}}": "a b",
        '{{$.inputs.parameters["text"]}}': "a b",
        "n={{$.inputs.parameters['number']}}": "n=3",
        "{{$.inputs.parameters['flag']}}": "true",
        "{{$.inputs.parameters['items']}}": '[1, "x"]',
        "{{$.inputs.artifacts['data'].path}}": "/data/d",
        "{{$.inputs.artifacts['data'].uri}}": "/data/d",
        "{{$.inputs.artifacts['data'].name}}": "d",
        "{{$.inputs.artifacts['data'].metadata['rows']}}": "4",
        "{{$.inputs.artifacts['data'].metadata['kind']}}": "csv",
        "{{$.inputs.artifacts['none'].path}}": "",
        "{{$.outputs.artifacts['model'].path}}/x": "/out/model/x",
        "{{$.outputs.parameters['count'].output_file}}": "/scratch/count",
        "{{$.outputs.output_file}}": "/scratch/report.json",
        "{{$.pipeline_job_name}}": "the run",
        "$HOME {{x}} {{{{": "$HOME {{x}} {{{{",
    }
    assert filled(*words) == list(words.values())
    assert json.loads(filled("{{$}}")[0]) == GIVEN
    assert json.loads(filled("{{$.inputs.artifacts['data'].metadata}}")[0]) == {"rows": 4, "kind": "csv"}


@pytest.mark.parametrize(
    ("words", "programs"),
    [
        (["echo", "x"], ["echo"]),
        ([json.dumps({"IfPresent": {"InputName": "text", "Then": ["echo", "a"], "Else": ["cat"]}})], ["echo", "cat"]),
        ([json.dumps({"IfPresent": {"InputName": "text", "Then": ["env"]}}), "echo", "cat"], ["env", "echo"]),
        ([json.dumps({"IfPresent": {"InputName": "text", "Then": [], "Else": "echo"}}), "cat"], ["echo", "cat"]),
        ([json.dumps({"Concat": ["ec", "ho"]}), "x"], ["echo"]),
        (["{{$.inputs.parameters['text']}}"], ["{{$.inputs.parameters['text']}}"]),
        ([], []),
    ],
)
def test_the_programs_that_a_command_may_start(words: list[str], programs: list[str]) -> None:
    assert programs_of(CommandLine(tuple(words))) == programs


def test_a_program_that_an_input_says() -> None:
    program = "{{$.inputs.parameters['text']}}"
    assert AllowedCommands(frozenset({"*"}), "/bin").problem(program) == ""
    assert "CONTAINER_COMMANDS" in AllowedCommands(frozenset({"sh"}), "/bin").problem(program)


def test_what_a_value_says_is_no_placeholder() -> None:
    given_text = {**GIVEN, "inputs": {**GIVEN["inputs"], "parameterValues": {"text": "{{$.pipeline_job_name}}"}}}
    assert fill_command(CommandLine(("{{$.inputs.parameters['text']}}",)), given_text, CONTEXT) == [
        "{{$.pipeline_job_name}}"
    ]


def test_structures() -> None:
    text = "{{$.inputs.parameters['text']}}"
    assert filled(json.dumps({"Concat": ["a-", text, "-", "{{$.inputs.parameters['flag']}}"]})) == ["a-a b-true"]
    there = {"IfPresent": {"InputName": "text", "Then": ["--t", text], "Else": "none"}}
    gone = {"IfPresent": {"InputName": "nothing", "Then": ["--t"], "Else": ["--no", {"Concat": ["x", text]}]}}
    empty = {"IfPresent": {"InputName": "none", "Then": "x"}}
    assert filled("a", json.dumps(there), json.dumps(gone), json.dumps(empty), "z") == [
        "a", "--t", "a b", "--no", "xa b", "z",
    ]  # fmt: skip
    assert filled(json.dumps({"Concat": ["a", there, gone]})) == ["a--ta b--noxa b"]
    assert filled('{"other": 1}') == ['{"other": 1}']


@pytest.mark.parametrize(
    "word",
    [
        "{{$.inputs.parameters['unknown']}}",
        "{{$.inputs.artifacts['text'].path}}",
        "{{$.outputs.parameters['model'].output_file}}",
        "{{$.outputs.parameters['count']}}",
        "{{$.inputs.artifacts['data'].digest}}",
        "{{$.json_escape[1]}}",
        "{{$.anything}}",
        '{"Concat": 1}',
        '{"Concat": [1]}',
        '{"Concat": ["a"], "x": 1}',
        '{"IfPresent": {"Then": "x"}}',
        '{"IfPresent": {"InputName": "text", "Then": "x", "More": 1}}',
        '{"IfPresent": {"InputName": "text", "Else": "{{$.anything}}"}}',
        '{"Concat": [',
        '{"Concat": [' * 60 + '"x"' + "]}" * 60,
        '{"Concat": [' + "[" * 100_000,
    ],
)
def test_what_is_none_is_refused(word: str) -> None:
    with pytest.raises(BadCommand):
        filled(word)


@given(st.text(max_size=60) | st.text("{}$.[]\"'inputs:Concat,IfPresent ", max_size=60))
def test_no_text_breaks_it(word: str) -> None:
    try:
        found = filled(word)
    except BadCommand:
        return
    assert all(isinstance(one, str) for one in found)


def test_what_may_be_started() -> None:
    path = "/usr/bin:/bin"
    assert AllowedCommands(frozenset({"sh"}), path).problem("sh") == ""
    assert AllowedCommands(frozenset({"*"}), path).problem("sh") == ""
    assert AllowedCommands(frozenset({"*"}), "").problem("python3") == ""
    assert "CONTAINER_COMMANDS" in AllowedCommands(frozenset({"sh"}), path).problem("bash")
    assert "no program" in AllowedCommands(frozenset({"*"}), path).problem("no-such-program")
