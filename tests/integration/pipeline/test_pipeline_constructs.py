"""What compiled pipelines are made of, at its edges: each ends as KFP ends it."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output, PipelineTaskFinalStatus
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2


@dsl.component
def say(text: str) -> str:
    return text


@dsl.component
def fail():
    raise RuntimeError("on purpose")


@dsl.component
def same(found: dict, expected: dict):
    assert found == expected, found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("constructs")


@pytest.fixture(scope="module")
def client(folder: Path, connect: Any) -> Any:
    from mlmesh_kit.testing import ServiceProcess

    with ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", folder, {"CONTAINER_COMMANDS": "sh,echo"}) as service:
        yield connect(service)
        assert "Traceback" not in service.log_path.read_text()


@pytest.fixture
def succeeds(client: Any, compile_pipeline: Any) -> Any:
    def run(pipeline: Any, **parameters: Any) -> run_pb2.Run:
        done = client.run(compile_pipeline(pipeline), parameters)
        assert done.state == run_pb2.SUCCEEDED, done.error.message
        return done

    return run


def outputs(client: Any, run: run_pb2.Run, task: str, by_name: Any) -> dict[str, Any]:
    url = f"{client.service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{by_name(run)[task].task_id}/outputs"
    found: dict[str, Any] = requests.get(url, timeout=10).json()
    return found


# -- artifacts that components make themselves


@dsl.component
def split(text: str) -> NamedTuple("Halves", left=Dataset, right=Dataset, length=int):  # type: ignore[valid-type]
    left, right = Dataset(uri=dsl.get_uri("left"), metadata={"of": text}), Dataset(uri=dsl.get_uri())
    for artifact, part in ((left, text[:2]), (right, text[2:])):
        with open(artifact.path, "w") as file:
            file.write(part)
    halves = NamedTuple("Halves", left=Dataset, right=Dataset, length=int)  # noqa: UP014
    return halves(left=left, right=right, length=len(text))


@dsl.component
def join(left: Dataset, right: Dataset) -> Model:
    model = Model(uri=dsl.get_uri("model"), metadata=left.metadata)
    with open(left.path) as one, open(right.path) as two, open(model.path, "w") as whole:
        whole.write(one.read() + two.read())
    return model


@dsl.component
def leave_in_temporary_folder(out: Output[Dataset]):
    import os
    import tempfile

    folder = tempfile.mkdtemp()
    with open(os.path.join(folder, "part"), "w") as file:
        file.write("kept")
    out.path = folder


@dsl.component
def read(whole: Input[Model], kept: Input[Dataset]) -> str:
    import os

    with open(whole.path) as one, open(os.path.join(kept.path, "part")) as two:
        return one.read() + two.read() + whole.metadata["of"]


@dsl.pipeline(name="own-artifacts")
def own_artifacts() -> Model:
    halves = split(text="abcd")
    whole = join(left=halves.outputs["left"], right=halves.outputs["right"])
    read(whole=whole.output, kept=leave_in_temporary_folder().outputs["out"])
    return whole.output


def test_artifacts_that_components_make_themselves(client: Any, succeeds: Any, by_name: Any) -> None:
    run = succeeds(own_artifacts)
    assert outputs(client, run, "read", by_name)["parameters"] == {"Output": "abcdkeptabcd"}
    artifacts = outputs(client, run, "split", by_name)["artifacts"]
    folder = Path(artifacts["left"][0]["uri"].removeprefix("file://")).parent
    assert sorted(os.listdir(folder)) == ["Output", "left"], "the executor's report is gone"
    assert artifacts["left"][0]["digest"] != artifacts["right"][0]["digest"]


# -- constants, imports and placeholders


@dsl.component
def machine() -> str:
    return "big"


@dsl.component
def count() -> int:
    return 2


@dsl.pipeline(name="nested-constants")
def nested_constants(zone: str = "a"):
    kind = machine()
    jobs = {"pools": [{"kind": kind.output, "zones": [f"{zone}-1"], "count": count().output}], "{{$x}}": "{{ y }}"}
    expected = {"pools": [{"kind": "big", "zones": ["a-1"], "count": 2}], "{{$x}}": "{{ y }}"}
    same(found=jobs, expected=expected)


@dsl.component
def metadata_of(artifact: Input[Artifact]) -> dict:
    return {"uri": artifact.uri, **artifact.metadata}


@dsl.pipeline(name="imports")
def imports(zone: str = "a"):
    name = machine()
    made = dsl.importer(
        artifact_uri="gs://bucket/file",
        artifact_class=Dataset,
        metadata={name.output: name.output, "all": [name.output, {"zone": zone}], "n": 1},
    )
    expected = {"uri": "gs://bucket/file", "big": "big", "all": ["big", {"zone": "a"}], "n": 1}
    same(found=metadata_of(artifact=made.output).output, expected=expected)


@dsl.component
def named(job: str, resource: str, task: str):
    assert resource == f"names-{job}", resource
    assert task == "named", task


@dsl.pipeline(name="names")
def names():
    named(
        job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        resource=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
        task=dsl.PIPELINE_TASK_NAME_PLACEHOLDER,
    )


@pytest.mark.parametrize("pipeline", [nested_constants, imports, names], ids=lambda pipeline: pipeline.name)
def test_placeholders(succeeds: Any, pipeline: Any) -> None:
    succeeds(pipeline)


@dsl.component
def write(out: Output[Dataset]):
    with open(out.path, "w") as file:
        file.write("shared")


@dsl.component
def uri_of(artifact: Input[Dataset]) -> str:
    return artifact.uri


@dsl.component
def content_of(artifact: Input[Dataset]) -> str:
    with open(artifact.path) as file:
        return file.read()


@dsl.pipeline(
    name="import-into-workspace", pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi"))
)
def import_into_workspace(uri: str = ""):
    place = uri_of(artifact=write().outputs["out"])
    made = dsl.importer(artifact_uri=place.output, artifact_class=Dataset, download_to_workspace=True)
    content_of(artifact=made.output)
    with dsl.If(uri != ""):
        dsl.importer(artifact_uri=uri, artifact_class=Dataset, download_to_workspace=True)


def test_imports_into_a_workspace(client: Any, succeeds: Any, compile_pipeline: Any, by_name: Any) -> None:
    run = succeeds(import_into_workspace)
    assert outputs(client, run, "content-of", by_name)["parameters"] == {"Output": "shared"}
    run = client.run(compile_pipeline(import_into_workspace), {"uri": "huggingface://gpt2"})
    assert run.state == run_pb2.FAILED
    assert "huggingface://gpt2 cannot be downloaded" in run.error.message


# -- ends


@dsl.component
def record(status: PipelineTaskFinalStatus) -> str:
    return f"{status.state} {status.pipeline_task_name} {status.pipeline_job_resource_name} {status.error_message}"


@dsl.pipeline(name="ends")
def ends(broken: bool):
    with dsl.ExitHandler(record(), name="body"), dsl.If(broken == True):  # noqa: E712
        fail()


@pytest.mark.parametrize("broken", [False, True])
def test_the_status_that_an_exit_task_gets(client: Any, compile_pipeline: Any, by_name: Any, broken: bool) -> None:
    run = client.run(compile_pipeline(ends), {"broken": broken})
    assert run.state == (run_pb2.FAILED if broken else run_pb2.SUCCEEDED), run.error.message
    words = outputs(client, run, "record", by_name)["parameters"]["Output"].split(" ", 3)
    assert words[:3] == ["FAILED" if broken else "COMPLETE", "exit-handler-1", f"ends-{run.run_id}"]
    assert ("on purpose" in words[3]) == broken


@dsl.component
def no_number(metrics: Output[Metrics]):
    metrics.log_metric("loss", float("nan"))


@dsl.component
def no_text() -> str:
    return "a\0b"


@dsl.container_component
def echo(text: str):
    return dsl.ContainerSpec(image="alpine", command=["echo"], args=[text])


@dsl.pipeline(name="not-a-number")
def not_a_number():
    no_number()


@dsl.pipeline(name="no-argument")
def no_argument():
    echo(text=no_text().output)


@pytest.mark.parametrize(("pipeline", "message"), [(not_a_number, "NaN is no number of JSON's"), (no_argument, "NUL")])
def test_values_that_cannot_be_passed_on(client: Any, compile_pipeline: Any, pipeline: Any, message: str) -> None:
    run = client.run(compile_pipeline(pipeline))
    assert run.state == run_pb2.FAILED
    assert message in run.error.message


# -- what compilers leave


def container(name: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    """Gives the IR of a pipeline that is one container."""
    return {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "components": {"comp-one": {"executorLabel": "exec-one"}},
        "deploymentSpec": {
            "executors": {"exec-one": {"container": {"image": "alpine", "command": ["echo", text], **more}}}
        },
        "root": {"dag": {"tasks": {"one": {"componentRef": {"name": "comp-one"}, "taskInfo": {"name": "one"}}}}},
    }


def test_a_part_of_an_item_that_is_asked_for_again_in_an_inner_dag(client: Any) -> None:
    part = "pipelinechannel--item-1-subvar-b"
    spec = container("parts", "{{$.inputs.parameters['text']}}")
    spec["components"] |= {
        "comp-one": {"executorLabel": "exec-one", "inputDefinitions": {"parameters": _strings("text")}},
        "comp-inner": {
            "inputDefinitions": {"parameters": _strings(part)},
            "dag": {"tasks": {"one": _task("comp-one", text=_part_of(part))}},
        },
        "comp-loop": {
            "inputDefinitions": {"parameters": {"pipelinechannel--item-1": {"parameterType": "STRUCT"}}},
            "dag": {"tasks": {"inner": _task("comp-inner", **{part: _part_of("pipelinechannel--item-1")})}},
        },
    }
    loop = {"itemInput": "pipelinechannel--item-1", "items": {"raw": json.dumps([{"b": "it"}])}}
    spec["root"]["dag"]["tasks"] = {"loop": {**_task("comp-loop"), "parameterIterator": loop}}
    run = client.run(spec)
    assert run.state == run_pb2.SUCCEEDED, run.error.message


def _strings(*found: str) -> dict[str, Any]:
    return {name: {"parameterType": "STRING"} for name in found}


def _part_of(name: str) -> dict[str, Any]:
    return {"componentInputParameter": name, "parameterExpressionSelector": 'parseJson(string_value)["b"]'}


def _task(component: str, **parameters: Any) -> dict[str, Any]:
    return {"componentRef": {"name": component}, "inputs": {"parameters": parameters}, "taskInfo": {"name": component}}


def test_components_that_nobody_uses_and_settings_of_other_releases(client: Any) -> None:
    spec = container("unused", resources={"accelerator": {"count": "1", "type": "nvidia.com/gpu"}})
    spec["components"]["comp-other"] = {"executorLabel": "exec-other"}
    spec["deploymentSpec"]["executors"]["exec-other"] = {"customJob": {"customJob": {"x": 1}}}
    settings = {"pipelineRunParallelism": 7, "maxActiveRuns": 2, "semaphoreKey": "x"}
    platform = {"platforms": {"kubernetes": {"pipelineConfig": settings}}}
    run = client.run({"pipeline_spec": spec, "platform_spec": platform})
    assert run.state == run_pb2.SUCCEEDED, run.error.message


def test_the_shell_is_that_of_the_image(client: Any) -> None:
    """Alpine's takes `==`, and Debian's does not."""
    spec = container("shells")
    one = spec["deploymentSpec"]["executors"]["exec-one"]["container"]
    one["command"] = ["sh", "-ec", '[ "a" == "a" ] && [[ b == b ]]']
    assert client.run(spec).state == run_pb2.SUCCEEDED
    one["image"] = "python:3.11-slim"
    assert client.run(spec).state == run_pb2.FAILED


# -- names of secrets


@dsl.component
def secret() -> str:
    import os

    return os.environ["PASSWORD"]


@dsl.pipeline(name="secrets-in-loops")
def secrets_in_loops():
    made = say(text="mine")
    with dsl.ParallelFor(["mine"]) as item:
        secret()
        say(text=made.output)
        say(text=item)


def test_secrets_named_by_inputs_of_the_loop_around(
    client: Any, compile_pipeline: Any, folder: Path, by_name: Any
) -> None:
    (folder / "secrets/default/mine").mkdir(parents=True)
    (folder / "secrets/default/mine/key").write_text("hidden")
    spec = compile_pipeline(secrets_in_loops, caching=False)
    for parameter, optional_volume in (
        ("pipelinechannel--say-Output", "missing"),
        ("pipelinechannel--loop-item-param-1", "missing"),
        ("pipelinechannel--loop-item-param-1", "mine"),
    ):
        config = {
            "secretAsEnv": [
                {
                    "secretNameParameter": {"componentInputParameter": parameter},
                    "keyToEnv": [{"secretKey": "key", "envVar": "PASSWORD"}],
                }
            ],
            "secretAsVolume": [{"secretName": optional_volume, "mountPath": "/x", "optional": True}],
        }
        platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-secret": config}}}}}
        run = client.run({"pipeline_spec": spec, "platform_spec": platform})
        if optional_volume == "missing":
            assert run.state == run_pb2.SUCCEEDED, run.error.message
            assert outputs(client, run, "secret", by_name)["parameters"] == {"Output": "hidden"}
        else:
            assert run.state == run_pb2.FAILED
            assert "'mine' as a volume needs the backend argo" in run.error.message
