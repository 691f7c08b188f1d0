"""A compiled pipeline with random changes is taken or refused; it never makes the checks fail."""

import copy
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kfp import compiler, dsl
from kfp.dsl import Dataset, Input, Output
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_pipeline.ir.check import check
from mlmesh_pipeline.ir.commands import AllowedCommands
from mlmesh_pipeline.ir.container_resources import Machine
from mlmesh_pipeline.ir.document import parse
from mlmesh_pipeline.ir.runnable import check_runnable, has_workspace, runtime_parameters

MACHINE = Machine(2000, 8 << 30)
ODD: list[Any] = [
    None, True, 0, -1, 2**63, 10**400, 0.5, math.nan, math.inf, "", "x", "..", "a/b", "\0", "\ud800", "x" * 70_000,
    "{{$.x}}", "{{$.inputs.parameters['zz']}}", "{{$}}", "(" * 400, "!" * 400, "9" * 5000, "int(1e999)",
    "parseJson(string_value)['a\"b']", "parseJson(string_value)[" + "9" * 30 + "]", '{"Concat": [[[1]]]}', "7s",
    "1e99s", "STRUCT", "TASK_FINAL_STATUS", [], {}, [[]], [None], {"": 1}, {"x": {"y": [1]}},
]  # fmt: skip


@dsl.component
def make(n: int, data: Output[Dataset]) -> int:
    return n


@dsl.container_component
def use(data: Input[Dataset], n: int):
    return dsl.ContainerSpec(image="alpine", command=["cat"], args=[data.path, n])


@dsl.component
def clean(status: dsl.PipelineTaskFinalStatus, note: str = ""): ...


@dsl.pipeline(name="everything", pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")))
def everything(items: list = [{"a": 1}], limit: int = 2, uri: str = "file:///x"):  # noqa: B006
    with dsl.ExitHandler(clean(note=f"{limit}")), dsl.ParallelFor(items, parallelism=2) as item:
        made = make(n=item.a).set_retry(2).set_env_variable("A", "b")
        with dsl.If(made.outputs["Output"] != limit):
            use(data=made.outputs["data"], n=limit)
    dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata={"uri": uri})


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import yaml

    path = tmp_path_factory.mktemp("mutations") / "p.yaml"
    compiler.Compiler().compile(everything, str(path))
    spec, platform = yaml.safe_load_all(path.read_text())
    platform["platforms"]["kubernetes"]["deploymentSpec"] = {
        "executors": {
            "exec-make": {
                "activeDeadlineSeconds": "30",
                "secretAsEnv": [{"secretName": "s", "keyToEnv": [{"secretKey": "k", "envVar": "V"}]}],
                "configMapAsVolume": [{"configMapNameParameter": {"componentInputParameter": "x"}, "optional": True}],
            }
        }
    }
    return {"pipeline_spec": spec, "platform_spec": platform}


def verdict(content: dict[str, Any]) -> str:
    try:
        document = parse(content)
        check(document)
        check_runnable(document, AllowedCommands(frozenset({"*"}), "/bin:/usr/bin"), MACHINE)
        has_workspace(document)
        runtime_parameters(document, {})
    except (InvalidArgument, FailedPrecondition) as error:
        assert str(error).encode()
        return str(error)
    return "taken"


def places(node: Any) -> list[tuple[Any, Any]]:
    """Gives each place in the content: what holds it, and its key there."""
    if isinstance(node, dict):
        pairs = list(node.items())
    elif isinstance(node, list):
        pairs = list(enumerate(node))
    else:
        return []
    return [place for key, child in pairs for place in [(node, key), *places(child)]]


def change(content: Any, draw: Any) -> None:
    found = places(content)
    holder, key = found[draw(st.integers(0, len(found) - 1))]
    other, other_key = found[draw(st.integers(0, len(found) - 1))]
    what = draw(st.sampled_from(["delete", "odd", "copy", "rename"]))
    if what == "delete":
        del holder[key]
    elif what == "odd":
        holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    elif what == "copy":
        holder[key] = copy.deepcopy(other[other_key])
    elif isinstance(holder, dict):
        holder[str(other_key)] = holder.pop(key)


def test_the_pipeline_itself_is_taken(content: dict[str, Any]) -> None:
    assert verdict(content) == "taken"


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changes_are_taken_or_refused(content: dict[str, Any], data: st.DataObject) -> None:
    changed = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 3))):
        if places(changed):
            change(changed, data.draw)
    assert verdict(changed)


def test_a_change_of_type_at_each_place_is_taken_or_refused(content: dict[str, Any]) -> None:
    taken = 0
    count = len(places(content))
    for number in range(count):
        for value in ([], {"x": 1}, "\0"):
            changed = copy.deepcopy(content)
            holder, key = places(changed)[number]
            if isinstance(holder[key], type(value)):
                continue
            holder[key] = value
            taken += verdict(changed) == "taken"
    assert 0 < taken < count
