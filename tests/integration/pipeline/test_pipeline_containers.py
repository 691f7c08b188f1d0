"""Container components as processes; secrets and config maps from files; workspaces; variables with placeholders."""

from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from kfp import dsl
from kfp.dsl import ConcatPlaceholder, Dataset, IfPresentPlaceholder, Input, Output, OutputPath, PipelineConfig
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2


@dsl.container_component
def write(text: str, data: Output[Dataset], length: OutputPath(int), note: str = None):  # type: ignore[valid-type]  # noqa: RUF013
    return dsl.ContainerSpec(
        image="alpine",
        command=["sh", "-c", 'printf "%s" "$0" > "$1" && printf "%s" "${#0}" > "$2"; shift 2; echo "more: $*"'],
        args=[
            ConcatPlaceholder(["<", text, ">"]),
            data.path,
            length,
            IfPresentPlaceholder(input_name="note", then=["--note", note], else_=["--without"]),
            f"-t={text}",
        ],
    )


@dsl.container_component
def count(data: Input[Dataset], lines: OutputPath(int), expected: int):  # type: ignore[valid-type]
    return dsl.ContainerSpec(
        image="alpine",
        command=["sh", "-ec", 'test -s "$0"; test "$VALUE" = "count-$1"; printf "%s" "$1" > "$2"'],
        args=[data.path, expected, lines],
    )


@dsl.component
def same(number: int, length: int):
    assert number == length, (number, length)


@dsl.pipeline(name="containers")
def containers(text: str = "it's $HOME"):
    first = write(text=text)
    second = count(data=first.outputs["data"], expected=first.outputs["length"])
    second.set_env_variable("VALUE", "{{$.pipeline_task_name}}-{{$.inputs.parameters['expected']}}")
    same(number=first.outputs["length"], length=second.outputs["lines"])


@dsl.container_component
def nothing(value: OutputPath(str)):  # type: ignore[valid-type]
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c", "exit $0"], args=["0"])


@dsl.container_component
def fails():
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c", "echo broken; exit 3"])


@dsl.container_component
def of_the_image():
    return dsl.ContainerSpec(image="alpine")


@dsl.container_component
def elsewhere():
    return dsl.ContainerSpec(image="alpine", command=["no-such-program"])


def _pipeline(component: Any) -> Any:
    @dsl.pipeline(name=f"only-{component.name}")
    def only():
        component()

    return only


@dsl.component
def environment(folder: str) -> str:
    import json
    import os

    return json.dumps([os.environ.get(name) for name in ("PASSWORD", "REGION", "MISSING")])


@dsl.pipeline(name="with-secrets")
def with_secrets(folder: str = ""):
    environment(folder=folder)


@dsl.component
def put(path: str):
    with open(path, "w") as file:
        file.write("shared")


@dsl.component
def take(folder: str) -> str:
    with open(folder + "/file") as file:
        return file.read()


@dsl.pipeline(name="shares", pipeline_config=PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")))
def workspace(name: str = "file"):
    first = put(path=f"{dsl.WORKSPACE_PATH_PLACEHOLDER}/{name}")
    take(folder=dsl.WORKSPACE_PATH_PLACEHOLDER).after(first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("containers")


@pytest.fixture(scope="module")
def client(folder: Path, connect: Any) -> Any:
    from mlmesh_kit.testing import ServiceProcess

    settings = {"CONTAINER_COMMANDS": "sh,no-such-program"}
    with ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", folder, settings) as service:
        yield connect(service)
        assert "Traceback" not in service.log_path.read_text()


def outputs(client: Any, run: run_pb2.Run, task: str, by_name: Any) -> dict[str, Any]:
    url = f"{client.service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{by_name(run)[task].task_id}"
    found: dict[str, Any] = requests.get(f"{url}/outputs", timeout=10).json()
    return found


def test_containers_as_processes(client: Any, compile_pipeline: Any, by_name: Any) -> None:
    run = client.run(compile_pipeline(containers))
    assert run.state == run_pb2.SUCCEEDED, run.error.message
    written = outputs(client, run, "write", by_name)
    assert written["parameters"] == {"length": len("<it's $HOME>")}
    assert Path(written["artifacts"]["data"][0]["uri"].removeprefix("file://")).read_text() == "<it's $HOME>"
    url = f"{client.service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{by_name(run)['write'].task_id}/log"
    assert requests.get(url, timeout=10).text.startswith("more: ")
    again = client.run(compile_pipeline(containers))
    cached = by_name(again)["write"].executor_detail.pre_caching_check_job
    assert again.state == run_pb2.SUCCEEDED and cached == f"cache/{by_name(run)['write'].task_id}"


def test_a_container_that_fails(client: Any, compile_pipeline: Any) -> None:
    failed = client.run(compile_pipeline(_pipeline(fails)))
    assert failed.state == run_pb2.FAILED and "exited with code 3" in failed.error.message
    silent = client.run(compile_pipeline(_pipeline(nothing)))
    assert silent.state == run_pb2.FAILED and "did not write the output parameter 'value'" in silent.error.message


@pytest.mark.parametrize(
    ("component", "words"), [(of_the_image, "has no command"), (elsewhere, "there is no program 'no-such-program'")]
)
def test_what_does_not_run_here_is_refused(client: Any, compile_pipeline: Any, component: Any, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.create(compile_pipeline(_pipeline(component)))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION and words in caught.value.details()


def test_nothing_is_allowed_unless_it_is_said(make_service: Any, connect: Any, compile_pipeline: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        connect(make_service()).create(compile_pipeline(_pipeline(fails)))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "CONTAINER_COMMANDS" in caught.value.details() and "backend argo" in caught.value.details()


def test_a_placeholder_that_is_none(client: Any, compile_pipeline: Any) -> None:
    spec = compile_pipeline(_pipeline(fails))
    (executor,) = spec["deploymentSpec"]["executors"].values()
    executor["container"]["args"] = ["{{$.inputs.parameters['x']}}"]
    with pytest.raises(grpc.RpcError) as caught:
        client.create(spec)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and "inputs.parameters" in caught.value.details()


def _with_platform(spec: dict[str, Any], **config: Any) -> dict[str, Any]:
    (label,) = spec["deploymentSpec"]["executors"]
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {label: config}}}}}
    return {"pipeline_spec": spec, "platform_spec": platform}


def _secret(name: Any, key: str, variable: str, **more: Any) -> dict[str, Any]:
    return {**name, "keyToEnv": [{"secretKey": key, "envVar": variable}], **more}


def test_secrets_and_config_maps_are_files(client: Any, compile_pipeline: Any, folder: Path, by_name: Any) -> None:
    for place, text in (("secrets/default/db/password", "hunter2\n"), ("configmaps/default/cloud/region", "eu")):
        path = folder / place
        path.parent.mkdir(parents=True)
        path.write_text(text)
    spec = _with_platform(
        compile_pipeline(with_secrets, caching=False),
        secretAsEnv=[
            _secret({"secretNameParameter": {"runtimeValue": {"constant": "db"}}}, "password", "PASSWORD"),
            _secret({"secretName": "none"}, "x", "MISSING", optional=True),
        ],
        configMapAsEnv=[{"configMapName": "cloud", "keyToEnv": [{"configMapKey": "region", "envVar": "REGION"}]}],
    )
    run = client.run(spec)
    assert run.state == run_pb2.SUCCEEDED, run.error.message
    found = outputs(client, run, "environment", by_name)["parameters"]["Output"]
    assert found == '["hunter2", "eu", null]'
    assert "hunter2" not in client.service.log_path.read_text() and "hunter2" not in str(client.get(run.run_id))


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("absent", "x", "DATA_DIR/secrets/default/absent/x"),
        ("../configmaps", "x", "is no name"),
        ("db", "../../x", "is no key"),
        ("db", "..", "is no key"),
        ("DB", "x", "is no name"),
    ],
)
def test_a_secret_that_is_not_there(client: Any, compile_pipeline: Any, name: str, key: str, words: str) -> None:
    spec = _with_platform(
        compile_pipeline(with_secrets, caching=False), secretAsEnv=[_secret({"secretName": name}, key, "X")]
    )
    run = client.run(spec)
    assert run.state == run_pb2.FAILED and words in run.error.message, run.error.message


def test_a_workspace_is_shared_and_gone_afterwards(
    client: Any, compile_pipeline: Any, folder: Path, by_name: Any
) -> None:
    spec = compile_pipeline(workspace)
    run = client.run(spec)
    assert run.state == run_pb2.SUCCEEDED, run.error.message
    assert outputs(client, run, "take", by_name)["parameters"]["Output"] == "shared"
    assert not list(folder.rglob("workspace"))
    failed = client.run(spec, {"name": "another"})
    assert failed.state == run_pb2.FAILED and len(list(folder.rglob("workspace"))) == 1  # a retry may want it
    client.runs.DeleteRun(run_pb2.DeleteRunRequest(run_id=failed.run_id))
    assert not list(folder.rglob("workspace"))
