"""Pipelines as Workflows, each held against the models that hera makes of Argo's own schema."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, replace

import pytest
import yaml
from hera.workflows.models import Workflow
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.objectstore import open_store
from mlmesh_pipeline.argo.__main__ import main
from mlmesh_pipeline.argo.check import check_compilable
from mlmesh_pipeline.argo.options import Options
from mlmesh_pipeline.argo.state import RunState, run_uri
from mlmesh_pipeline.argo.workflow import compile_workflow
from mlmesh_pipeline.ir.check import check
from mlmesh_pipeline.ir.document import join_documents, parse
from mlmesh_pipeline.resources import Run

warnings.simplefilter("ignore", FutureWarning)
from kfp import compiler, dsl  # noqa: E402

RUN = Run("0b0e6ba7-61a9-4f39-8a5d-9a5c4ad2c0a1", "team", "e", "my run", "p", "", {}, service_account="trainer")


@dsl.component
def make(x: int = 1) -> int:
    return x


@dsl.component
def end(status: dsl.PipelineTaskFinalStatus): ...


@dsl.container_component
def shell(x: int, out: dsl.Output[dsl.Model]):
    return dsl.ContainerSpec(image="busybox", command=["sh", "-c", "echo $0"], args=[x, out.path])


@dsl.container_component
def entry_point():
    return dsl.ContainerSpec(image="busybox")


@dsl.pipeline
def inner(x: int) -> int:
    return make(x=make(x=x).output).output


@dsl.pipeline(pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="5Gi")))
def everything(n: int = 1, uri: str = "s3://bucket/data"):
    first = make(x=n)
    with dsl.ExitHandler(end()):
        with dsl.If(first.output == 1):
            one = make(x=1)
        with dsl.Else():
            two = make(x=2)
        make(x=dsl.OneOf(one.output, two.output))
        with dsl.ParallelFor([1, 2], parallelism=2) as outer, dsl.ParallelFor([3, 4]) as item:
            shell(x=item).after(make(x=outer))
    inner(x=n)
    entry_point()
    data = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, download_to_workspace=True)
    make(x=n).after(data).ignore_upstream_failure()
    tried = make(x=3)
    tried.set_retry(3, backoff_duration="5s", backoff_factor=3, backoff_max_duration="60s")
    tried.set_cpu_limit("2").set_memory_request("1Gi").set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)


def document_of(pipeline, tmp_path, change=lambda spec, platform: None):
    path = tmp_path / "p.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    documents = list(yaml.safe_load_all(path.read_text()))
    platform = (
        documents[1] if len(documents) > 1 else {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}}
    )
    change(documents[0], platform["platforms"]["kubernetes"])
    document = parse(join_documents([documents[0], platform]))
    check(document)
    return document


def compiled(document, number=1, **options):
    check_compilable(document)
    workflow = compile_workflow(document, RUN, number, Options(**options))
    made = Workflow.model_validate(workflow)
    # What the schema does not know would be gone, and what it knows otherwise would be other.
    assert json.loads(made.model_dump_json(by_alias=True, exclude_unset=True)) == workflow
    return workflow


def template(workflow, name):
    return next(one for one in workflow["spec"]["templates"] if one["name"] == name)


def steps(workflow, name):
    return {one["name"]: one for one in template(workflow, name)["dag"]["tasks"]}


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    return compiled(document_of(everything, tmp_path_factory.mktemp("w")), volume_claim="")


def test_a_task_is_a_driver_and_what_it_decides_on(workflow):
    root = steps(workflow, "root")
    assert root["make-driver"] == {
        "name": "make-driver",
        "template": "driver",
        "arguments": {"parameters": [{"name": "path", "value": "make"}]},
    }
    assert root["make"]["depends"] == "make-driver.Succeeded"
    assert root["make"]["when"] == "{{tasks.make-driver.outputs.parameters.decision}} == run"
    assert root["make"]["template"] == "exec-make"
    assert {one["name"]: one["value"] for one in root["make"]["arguments"]["parameters"]} == {
        "path": "make",
        "pod-spec-patch": "{{tasks.make-driver.outputs.parameters.pod-spec-patch}}",
        "task": "{{tasks.make-driver.outputs.parameters.task}}",
    }


def test_tasks_wait_as_their_trigger_says(workflow):
    root = steps(workflow, "root")
    results = ("Succeeded", "Skipped", "Failed", "Errored", "Omitted")
    assert root["end-driver"]["depends"] == f"({' || '.join(f'exit-handler-1.{one}' for one in results)})"
    assert root["exit-handler-1-driver"]["depends"] == "(make.Succeeded || make.Skipped)"
    nested = steps(workflow, "dag-comp-inner")
    assert nested["make-2-driver"]["depends"] == "(make.Succeeded || make.Skipped)"
    assert nested["make-2-driver"]["arguments"]["parameters"][0]["value"] == "{{inputs.parameters.path}}make-2"


def test_loops_have_a_template_of_their_own_with_their_limit(workflow):
    loops = [one for one in workflow["spec"]["templates"] if one["name"].startswith("loop-")]
    assert sorted(one.get("parallelism", 0) for one in loops) == [0, 2]
    for loop in loops:
        (task,) = loop["dag"]["tasks"]
        assert task["withParam"] == "{{inputs.parameters.iterations}}"
        assert task["arguments"]["parameters"][0]["value"] == "{{inputs.parameters.path}}[{{item}}]/"


def test_containers_follow_each_other_in_a_pod(workflow):
    pod = template(workflow, "exec-shell")
    containers = {one["name"]: one for one in pod["containerSet"]["containers"]}
    assert containers["main"]["image"] == "busybox"
    assert containers["main"]["dependencies"] == ["fetch"]
    assert containers["store"]["dependencies"] == ["main"]
    assert containers["store"]["image"] == containers["fetch"]["image"] == Options().image
    secrets = [one for one in containers["store"]["env"] if "valueFrom" in one]
    assert [one["valueFrom"]["secretKeyRef"]["name"] for one in secrets] == ["mlmesh-s3"] * 2
    assert "env" not in containers["main"]  # the keys of the store are not for users' code
    assert {one["mountPath"] for one in pod["containerSet"]["volumeMounts"]} >= {"/s3", "/minio", "/kfp-workspace"}
    assert pod["podSpecPatch"] == "{{inputs.parameters.pod-spec-patch}}"
    main = template(workflow, "exec-entry-point")["containerSet"]["containers"][1]
    assert "command" not in main  # Argo looks it up in the image


def test_retries_keep_their_backoff(workflow):
    strategies = [one["retryStrategy"] for one in workflow["spec"]["templates"] if one["name"].startswith("exec-make")]
    assert {
        "limit": "3",
        "retryPolicy": "Always",
        "backoff": {"duration": "5s", "factor": "3", "cap": "60s"},
    } in strategies
    assert {"limit": "2", "retryPolicy": "OnError"} in strategies


def test_an_importer_is_its_driver_alone(workflow):
    root = steps(workflow, "root")
    assert root["importer"]["template"] == "driver-with-workspace"
    assert "importer-driver" not in root
    mounts = template(workflow, "driver-with-workspace")["container"]["volumeMounts"]
    assert {"name": "mlmesh-workspace", "mountPath": "/kfp-workspace"} in mounts


def test_a_run_says_who_it_is_and_how_long_it_stays(workflow):
    assert workflow["metadata"]["name"] == f"p-{RUN.run_id}-1"
    assert workflow["metadata"]["namespace"] == "team"
    assert workflow["metadata"]["labels"]["pipeline/runid"] == RUN.run_id
    assert workflow["spec"]["podMetadata"]["labels"]["pipeline/runid"] == RUN.run_id
    assert workflow["spec"]["serviceAccountName"] == "trainer"
    assert workflow["spec"]["ttlStrategy"] == {"secondsAfterCompletion": 86400}
    (claim,) = workflow["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "5Gi"}}


def test_the_pipelines_configuration_goes_before_the_services(tmp_path):
    def change(spec, platform):
        platform["pipelineConfig"] = {
            "resourceTtlOnSuccess": 60,
            "resourceTtlOnFailure": 600,
            "activeDeadlineSeconds": 3600,
            "workspace": {
                "size": "1Gi",
                "kubernetes": {"pvcSpecPatch": {"accessModes": ["ReadWriteMany"], "storageClassName": "fast"}},
            },
        }
        platform["deploymentSpec"]["executors"]["exec-make"] = {
            "activeDeadlineSeconds": 30,
            "podMetadata": {"labels": {"team": "a"}, "annotations": {"note": "x: y"}},
        }

    found = compiled(
        document_of(inner, tmp_path, change),
        number=3,
        namespace="argo",
        parallelism=7,
        task_timeout_seconds=90,
        instance_id="mine",
        volume_claim="shared",
        artifact_root="file:///mnt/artifacts",
        s3_secret="",
    )
    assert found["metadata"]["name"].endswith("-3")
    assert found["metadata"]["namespace"] == "argo"
    assert found["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] == "mine"
    assert found["spec"]["ttlStrategy"] == {"secondsAfterSuccess": 60, "secondsAfterFailure": 600}
    assert found["spec"]["activeDeadlineSeconds"] == 3600
    assert found["spec"]["parallelism"] == 7
    assert found["spec"]["volumeClaimTemplates"][0]["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    pod = template(found, "exec-make")
    assert pod["activeDeadlineSeconds"] == 30
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["annotations"] == {"note": "x: y"}
    assert {"name": "mlmesh-artifacts", "mountPath": "/mnt/artifacts"} in pod["containerSet"]["volumeMounts"]
    assert "secretKeyRef" not in json.dumps(found)
    assert template(found, "exec-make-2")["activeDeadlineSeconds"] == 90


EXECUTORS = "platform_spec.platforms.kubernetes.deploymentSpec.executors['exec-make']"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"podMetadata": {"annotations": {"a": "{{workflow.name}}"}}}, "podMetadata.annotations['a']"),
        ({"podMetadata": {"labels": {"a": "no label!"}}}, "podMetadata.labels['a']"),
        ({"podMetadata": ["a"]}, "podMetadata"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"secretAsEnv": [{"secretName": 3}]}, "secretAsEnv[0].secretName"),
        ({"secretAsEnv": [{"secretNameParameter": {"x": 1}}]}, "secretAsEnv[0].secretNameParameter"),
        ({"tolerations": {"key": "a"}}, "tolerations"),
        ({"activeDeadlineSeconds": "soon"}, "activeDeadlineSeconds"),
        ({"activeDeadlineSeconds": -1}, "activeDeadlineSeconds"),
        ({"securityContext": {"runAsUser": 1.5}}, "securityContext.runAsUser"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_platform_is_refused_with_its_path(tmp_path, config, field):
    def change(spec, platform):
        platform["deploymentSpec"]["executors"]["exec-make"] = config

    with pytest.raises(InvalidArgument) as caught:
        check_compilable(document_of(inner, tmp_path, change))
    assert caught.value.violations[0][0] == f"{EXECUTORS}.{field}"


def test_what_argo_cannot_do_is_refused(tmp_path):
    def custom_job(spec, platform):
        spec["deploymentSpec"]["executors"]["exec-make"] = {"customJob": {"customJob": {}}}

    with pytest.raises(FailedPrecondition, match=r"executors\['exec-make'\]: custom_job cannot run"):
        check_compilable(document_of(inner, tmp_path, custom_job))

    def no_workspace(spec, platform):
        platform.pop("pipelineConfig")

    with pytest.raises(FailedPrecondition, match="downloadToWorkspace: the pipeline has no workspace"):
        check_compilable(document_of(everything, tmp_path, no_workspace))


def test_the_command_prints_the_workflow(tmp_path, capsys):
    compiler.Compiler().compile(inner, str(tmp_path / "p.yaml"))
    assert main(["compile", str(tmp_path / "p.yaml"), "--namespace", "mine"], {}) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["kind"] == "Workflow"
    assert shown["metadata"]["namespace"] == "mine"
    (tmp_path / "p.yaml").write_text("root: {}")
    assert main(["compile", str(tmp_path / "none.yaml")], {}) == 1
    assert "none.yaml: No such file" in capsys.readouterr().err
    assert main(["compile", str(tmp_path / "p.yaml")], {}) == 1
    assert "pipelineInfo.name" in capsys.readouterr().err


def test_what_runs_in_a_pod_is_a_process_that_tells_argo_by_files(tmp_path):
    document = document_of(inner, tmp_path)
    root = (tmp_path / "artifacts").as_uri()
    options = Options(artifact_root=root, state_root=f"{root}/state", volume_claim="v", s3_secret="")
    run = replace(RUN, parameters={"x": 4})
    state = RunState(open_store(root), run_uri(options.state_root, run.namespace, run.run_id), 1)
    state.describe(run, document, asdict(options))
    driver = template(compile_workflow(document, run, 1, options), "driver")["container"]
    environment = {one["name"]: one["value"] for one in driver["env"]}
    environment |= {"PATH": os.environ["PATH"], "MLMESH_ARGO_OUTPUTS": str(tmp_path / "out")}

    def drive(path: str) -> tuple[int, str]:
        command = [sys.executable, *driver["command"][1:], path]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    assert drive("make") == (0, "")
    told = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert told["decision"] == "run"
    assert told["iterations"] == "[]"
    assert json.loads(told["pod-spec-patch"])["containers"][0]["image"] == "python:3.11"
    assert state.begun("make")[0].parameters == {"x": 4}
    assert drive("make-2") == (0, "")  # what it waits for did not end well: it is not run
    assert (tmp_path / "out" / "decision").read_text() == "skip"
    assert state.ended("make-2").problem.message == "not run: make failed"
    assert drive("../make")[0] == 1
