import copy
import warnings

import pytest
import yaml
from kfp import compiler, dsl
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_pipeline.ir.check import check
from mlmesh_pipeline.ir.commands import AllowedCommands
from mlmesh_pipeline.ir.container_resources import Machine
from mlmesh_pipeline.ir.document import join_documents, parse
from mlmesh_pipeline.ir.runnable import check_runnable, runtime_parameters

MACHINE = Machine(2000, 8 << 30)

warnings.simplefilter("ignore")


@dsl.component
def add(a: int, b: int = 3) -> int:
    return a + b


@dsl.pipeline(name="sum")
def sums(n: int, ratio: float = 0.5, names: list = ["a"]):  # noqa: B006
    first = add(a=n)
    with dsl.If(first.output > 3):
        add(a=first.output)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("ir") / "p.yaml"
    compiler.Compiler().compile(sums, str(path))
    return yaml.safe_load(path.read_text())


@pytest.fixture
def content(compiled):
    return copy.deepcopy(compiled)


def _check(content):
    document = parse(content)
    check(document)
    return document


def test_a_compiled_pipeline_is_whole(content):
    document = _check(content)
    check_runnable(document, AllowedCommands(), MACHINE)
    assert document.name == "sum"
    assert runtime_parameters(document, {"n": 4.0}) == {"n": 4, "ratio": 0.5, "names": ["a"]}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "'n'"),
        ({"n": "4"}, "'n'"),
        ({"n": 4.5}, "'n'"),
        ({"n": True}, "'n'"),
        ({"n": 1, "extra": 2}, "'extra'"),
        ({"n": 1, "names": {"a": 1}}, "'names'"),
        ({"n": 1, "ratio": "x"}, "'ratio'"),
    ],
)
def test_parameters_are_checked(content, given, field):
    with pytest.raises(InvalidArgument, match=field):
        runtime_parameters(_check(content), given)


def _set(content, path, value):
    *parents, last = path
    for key in parents:
        content = content[key]
    content[last] = value


_ROOT = ("root", "dag", "tasks", "add")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("pipelineInfo",), {}, "pipelineInfo.name"),
        (("nonsense",), 1, "nonsense"),
        (("root",), {"executorLabel": "exec-add"}, "root.dag"),
        ((*_ROOT, "componentRef", "name"), "comp-x", r"root.dag.tasks\['add'\].componentRef.name"),
        ((*_ROOT, "dependentTasks"), ["other"], "'other'"),
        ((*_ROOT, "dependentTasks"), ["condition-1"], "circle"),
        ((*_ROOT, "inputs"), {}, "'a' is required"),
        ((*_ROOT, "inputs", "parameters", "a"), {"componentInputParameter": "zz"}, "'zz'"),
        ((*_ROOT, "inputs", "parameters", "b"), {"runtimeValue": {"constant": "{{$.secret}}"}}, "placeholder"),
        ((*_ROOT, "triggerPolicy"), {"condition": "import os"}, "condition"),
        (("components", "comp-add", "executorLabel"), "exec-nope", "exec-nope"),
        (("components", "comp-add"), {"inputDefinitions": {}}, "dag or an executorLabel"),
        (("deploymentSpec", "executors", "exec-add", "container", "imagge"), "x", "deploymentSpec"),
        (("schemaVersion",), "1.0", "schemaVersion"),
    ],
)
def test_what_does_not_hold_together_is_refused_with_its_path(content, path, value, message):
    _set(content, path, value)
    with pytest.raises(InvalidArgument, match=message):
        _check(content)


def test_a_component_that_contains_itself(content):
    content["components"]["comp-condition-1"]["dag"]["tasks"]["add-2"]["componentRef"]["name"] = "comp-condition-1"
    content["components"]["comp-condition-1"]["dag"]["tasks"]["add-2"]["inputs"] = {
        "parameters": {"pipelinechannel--add-Output": {"componentInputParameter": "pipelinechannel--add-Output"}}
    }
    with pytest.raises(InvalidArgument, match="contains itself"):
        _check(content)


def test_dags_that_unfold_to_too_much(content):
    task = {"componentRef": {"name": "comp-level-0"}}
    for level in range(12):
        inner = f"comp-level-{level + 1}" if level < 11 else "comp-add"
        inputs = {"parameters": {"a": {"runtimeValue": {"constant": 1}}}} if level == 11 else {}
        tasks = {f"t{n}": {"componentRef": {"name": inner}, "inputs": inputs} for n in range(4)}
        content["components"][f"comp-level-{level}"] = {"dag": {"tasks": tasks}}
    content["root"]["dag"]["tasks"]["bomb"] = task
    with pytest.raises(InvalidArgument, match="more than 10000 tasks"):
        _check(content)


def test_depth_is_limited():
    deep: dict = {}
    inner = deep
    for _ in range(10_000):
        inner["a"] = {}
        inner = inner["a"]
    with pytest.raises(InvalidArgument, match="deeper"):
        parse(deep)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"container": {"image": "alpine", "command": ["echo", "hi"]}},
            r"exec-add.*alpine.*MLMESH_PIPELINE_CONTAINER_COMMANDS=echo",
        ),
        ({"customJob": {"customJob": {}}}, "custom_job"),
    ],
)
def test_what_cannot_run_here_is_named(content, change, message):
    content["deploymentSpec"]["executors"]["exec-add"] = change
    with pytest.raises(FailedPrecondition, match=message):
        check_runnable(_check(content), AllowedCommands(), MACHINE)


def test_platform_features_are_named(content):
    platform = {
        "platforms": {
            "kubernetes": {
                "deploymentSpec": {"executors": {"exec-add": {"secretAsVolume": [{"secretName": "s"}]}}},
            }
        }
    }
    document = _check(join_documents([content, platform]))
    with pytest.raises(FailedPrecondition, match="secretAsVolume"):
        check_runnable(document, AllowedCommands(), MACHINE)
