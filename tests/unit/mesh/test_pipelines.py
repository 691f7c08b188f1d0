"""Pipelines from files, and the parameters that are given with them."""

from pathlib import Path
from typing import Any

import pytest
from mlmesh.documents import DocumentError
from mlmesh.pipelines import ir_of, load_pipeline, parse_parameters, without_cache

HEADER = """
from kfp import dsl

@dsl.component
def nothing(seconds: float):
    pass
"""
ONE = """
@dsl.pipeline(name="first-pipeline")
def one(seconds: float):
    nothing(seconds=seconds)
"""
TWO = """
@dsl.pipeline
def other():
    nothing(seconds=0.0)
"""


def typed(**kinds: str) -> dict[str, Any]:
    parameters = {name: {"parameterType": kind, "isOptional": True} for name, kind in kinds.items()}
    return {"pipelineInfo": {"name": "x"}, "root": {"inputDefinitions": {"parameters": parameters}}}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("STRING", "5", "5"),
        ("STRING", "a=b", "a=b"),
        ("NUMBER_INTEGER", "-5", -5),
        ("NUMBER_DOUBLE", "1e-3", 0.001),
        ("BOOLEAN", "True", True),
        ("LIST", "[1, 2]", [1, 2]),
        ("STRUCT", '{"a": 1}', {"a": 1}),
    ],
)
def test_parameters_have_the_type_that_the_pipeline_says(kind: str, text: str, value: Any) -> None:
    assert parse_parameters(typed(x=kind), [f"x={text}"]) == {"x": value}


@pytest.mark.parametrize(
    ("kind", "text"),
    [("NUMBER_INTEGER", "1.5"), ("NUMBER_DOUBLE", "a"), ("BOOLEAN", "1"), ("LIST", "{}"), ("STRUCT", "a")],
)
def test_a_value_of_another_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(DocumentError, match="--param x="):
        parse_parameters(typed(x=kind), [f"x={text}"])


def test_unknown_and_missing_parameters_are_named() -> None:
    with pytest.raises(DocumentError, match="there are: a, b"):
        parse_parameters(typed(b="STRING", a="STRING"), ["c=1"])
    with pytest.raises(DocumentError, match="NAME=VALUE"):
        parse_parameters(typed(a="STRING"), ["a"])
    needed = typed(a="STRING")
    del needed["root"]["inputDefinitions"]["parameters"]["a"]["isOptional"]
    with pytest.raises(DocumentError, match="--param a="):
        parse_parameters(needed, [])


def test_one_pipeline_of_a_python_file(tmp_path: Path) -> None:
    path = tmp_path / "pipelines.py"
    path.write_text(HEADER + ONE + TWO)
    with pytest.raises(DocumentError, match="one, other; say which with --pipeline NAME"):
        load_pipeline(str(path))
    with pytest.raises(DocumentError, match="did you mean 'other'"):
        load_pipeline(str(path), "others")
    loaded = load_pipeline(str(path), "first-pipeline")
    assert ir_of(loaded)["pipelineInfo"]["name"] == "first-pipeline"
    without_cache(loaded)
    assert ir_of(loaded)["root"]["dag"]["tasks"]["nothing"]["cachingOptions"]["enableCache"] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('nothing here')", "has no function with @dsl.pipeline"),
        ("x = 1\nraise RuntimeError('broken')", r"pipelines.py:2: RuntimeError: broken"),
        ("def f(:", r"pipelines.py:1: SyntaxError"),
        ("import sys\nsys.exit(3)", r"pipelines.py:2: SystemExit: 3"),
        ("import os\nos._exit(3)", "ended the compiler with code 3"),
    ],
)
def test_a_python_file_without_a_pipeline(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "pipelines.py"
    path.write_text(text)
    with pytest.raises(DocumentError, match=said):
        load_pipeline(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "not valid YAML at line"),
        ("", "is empty"),
        ("- 1", "expected a mapping at the top, found a list"),
        ("kind: Experiment", "try: mlmesh tune"),
        ("kind: Other", "no pipelineInfo and root"),
        ("pipelineInfo: {}\nroot: {}\n---\na: 1", "its platform specification"),
        ("a: 1\na: 2", "twice"),
        ("a: .nan", "JSON"),
    ],
)
def test_a_file_that_is_no_compiled_pipeline(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    with pytest.raises(DocumentError, match=said):
        load_pipeline(str(path))


def test_a_platform_specification_goes_with_its_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("pipelineInfo: {name: x}\nroot: {}\n---\nplatforms: {kubernetes: {}}")
    loaded = load_pipeline(str(path))
    assert ir_of(loaded)["pipelineInfo"] == {"name": "x"}
    assert loaded["platform_spec"] == {"platforms": {"kubernetes": {}}}


def test_archives_and_missing_files(tmp_path: Path) -> None:
    for name, said in [("a.zip", "unpack it"), ("a.yaml", "No such file"), ("a.py", "no such file")]:
        with pytest.raises(DocumentError, match=said):
            load_pipeline(str(tmp_path / name))
    (tmp_path / "train.py").touch()
    for name in ("train", "trian.py"):
        with pytest.raises(DocumentError, match=r"did you mean .*/train.py\?"):
            load_pipeline(str(tmp_path / name))
    (tmp_path / "stop.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)")
    with pytest.raises(DocumentError, match="ended the compiler with code -2"):  # and nothing else is said
        load_pipeline(str(tmp_path / "stop.py"))
