"""The Argo backend: a service whose cluster is kmock and whose Argo is the small one of `support.argo`.

The same pipelines run here and on the local engine, and must end alike, task for task.
"""

import json
import time
from pathlib import Path
from typing import Optional

import grpc
import httpx
import pytest
from kfp import dsl
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2
from mlmesh_protos.mlmesh.pipeline.v1 import run_analysis_pb2, run_analysis_pb2_grpc
from support.kubernetes import Kubernetes

STATE = run_pb2.RuntimeState


@dsl.component
def say(text: str) -> str:
    return text


@dsl.component
def add(a: int, b: int = 1) -> int:
    return a + b


@dsl.component
def total(numbers: list) -> int:
    return sum(numbers)


@dsl.component
def boom(why: str = "boom") -> str:
    raise ValueError(why)


@dsl.component
def flaky(place: str) -> int:
    import pathlib

    folder = pathlib.Path(place)
    folder.mkdir(exist_ok=True)
    count = len(list(folder.iterdir()))
    (folder / str(count)).touch()
    if count < 1:
        raise RuntimeError("not yet")
    return count


@dsl.component
def make(text: str, model: dsl.Output[dsl.Model], numbers: dsl.Output[dsl.Metrics]):
    import pathlib

    pathlib.Path(model.path).write_text(text)
    model.metadata["size"] = len(text)
    numbers.log_metric("accuracy", 0.5)


@dsl.component
def read(model: dsl.Input[dsl.Artifact], note: Optional[str] = None) -> str:  # noqa: UP045 (KFP knows no other way)
    import pathlib

    return pathlib.Path(model.path).read_text() + (note or "") + str(model.metadata.get("size", ""))


@dsl.component
def read_all(models: dsl.Input[list[dsl.Model]]) -> str:
    import pathlib

    return ",".join(pathlib.Path(model.path).read_text() for model in models)


@dsl.component
def make_one(text: str, model: dsl.Output[dsl.Model]):
    import pathlib

    pathlib.Path(model.path).write_text(text)


@dsl.component
def final(status: dsl.PipelineTaskFinalStatus) -> str:
    return f"{status.pipeline_task_name} {status.state} {status.error_message}"


@dsl.component
def wait(place: str) -> str:
    import pathlib
    import time

    print("waiting for it", flush=True)
    deadline = time.monotonic() + 30
    while not pathlib.Path(place).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(place)
        time.sleep(0.02)
    return "seen"


@dsl.component
def want(place: str, text: str) -> str:
    import pathlib

    if not pathlib.Path(place).exists():
        raise FileNotFoundError("not there yet")
    return text


@dsl.container_component
def shell(text: str, number: int, done: dsl.OutputPath(str), model: dsl.Output[dsl.Model], extra: str = ""):
    return dsl.ContainerSpec(
        image="busybox",
        command=["sh", "-c", 'echo "$0"; printf "%s" "$0" > "$1"; printf "%s" "$2" > "$3"'],
        args=[text, done, dsl.ConcatPlaceholder(["n=", number]), model.path],
    )


@dsl.pipeline
def inner(n: int) -> int:
    return add(a=add(a=n).output, b=10).output


@dsl.pipeline(name="argo-branches")
def branches(n: int = 2, text: str = "a"):
    with dsl.If(n == 1):
        one = say(text="one")
    with dsl.Elif(n == 2):
        two = say(text="two")
    with dsl.Else():
        more = say(text="more")
    say(text=dsl.OneOf(one.output, two.output, more.output))
    inner(n=n)


@dsl.pipeline(name="argo-loops")
def loops(items: list = [1, 2]):  # noqa: B006 (it becomes a default of the IR)
    with dsl.ParallelFor(items) as item:
        added = add(a=item)
        with dsl.ParallelFor([10, 20], parallelism=1) as other:
            add(a=item, b=other)
            model = make_one(text="m")
    total(numbers=dsl.Collected(added.output))
    with dsl.ParallelFor(["x", "y"]) as letter:
        model = make_one(text=letter)
    read_all(models=dsl.Collected(model.outputs["model"]))


@dsl.pipeline(name="argo-artifacts")
def artifacts(text: str = "hello", place: str = "/nowhere"):
    made = make(text=text)
    read(model=made.outputs["model"], note="!")
    read(model=dsl.importer(artifact_uri=place, artifact_class=dsl.Dataset, metadata={"size": 7}).output)


@dsl.pipeline(name="argo-failures")
def failures(place: str = ""):
    ending = final()
    with dsl.ExitHandler(ending):
        bad = boom(why="no {{workflow.name}} here")
        say(text=bad.output)
        flaky(place=place).set_retry(2)
    other = boom(why="again")
    say(text="goes on").after(other).ignore_upstream_failure()
    say(text="does not").after(other)


@dsl.pipeline(name="argo-waits")
def waits(place: str):
    wait(place=place)


@dsl.pipeline(name="argo-evicted")
def evicted(text: str):
    say(text=text).set_display_name("evicted")
    shell(text=text, number=3)


@dsl.pipeline(name="argo-wants")
def wants(place: str):
    wanted = want(place=place, text=say(text="once").output)
    say(text=wanted.output)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    def spoil(pod: str, path: str, number: int) -> str:
        return "Error" if pod.startswith("argo-evicted") and path == "say" and number == 1 else ""

    with Kubernetes(tmp_path_factory.mktemp("cluster"), spoil=spoil) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def argo(cluster, connect):
    settings = {
        "BACKEND": "argo",
        "ARGO_KUBECONFIG": str(cluster.kubeconfig),
        "ARGO_VOLUME_CLAIM": "artifacts",
        "ARGO_FOLDER": str(cluster.folder / "mlmesh"),
        "SCAN_SECONDS": "0.2",
    }
    with ServiceProcess("mlmesh_pipeline", "MLMESH_PIPELINE_", cluster.folder / "data", settings) as service:
        yield connect(service)


def shape(client, run) -> dict[str, tuple]:
    """What a run says of its tasks: by the names of what they are in, their state, why, and what they gave."""
    details = {task.task_id: task for task in run.run_details.task_details}

    def path(task) -> str:
        above = details.get(task.parent_task_id)
        return f"{path(above)}/{task.display_name}" if above is not None else task.display_name

    found = {}
    for task in details.values():
        place = f"{client.service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{task.task_id}/outputs"
        outputs = httpx.get(place).json()
        kept = {
            name: [(item["type"], item["metadata"], item["digest"]) for item in items]
            for name, items in outputs["artifacts"].items()
        }
        ended = (STATE.Name(task.state), task.error.message, outputs["parameters"], kept)
        found.setdefault(path(task), []).append(ended)
    return {name: sorted(values, key=json.dumps) for name, values in found.items()}


@pytest.mark.parametrize(
    ("pipeline", "parameters"),
    [(branches, {"n": 2}), (branches, {"n": 5}), (loops, {}), (loops, {"items": []}), (artifacts, {}), (failures, {})],
    ids=["elif", "else", "loops", "no-items", "artifacts", "failures"],
)
def test_pipelines_end_as_on_the_local_engine(argo, client, compile_pipeline, tmp_path, pipeline, parameters):
    spec = compile_pipeline(pipeline, caching=False)
    ended = []
    for service in (client, argo):
        given = dict(parameters)
        if "place" in spec["root"]["inputDefinitions"]["parameters"]:
            given["place"] = str(tmp_path / service.service.data_dir.name)
        if pipeline is artifacts:  # pods see what is under the root of artifacts
            imported = service.service.data_dir / "artifacts" / "imported"
            imported.parent.mkdir(exist_ok=True)
            imported.write_text("imported")
            given["place"] = imported.as_uri()
        run = service.run(spec, given)
        ended.append((STATE.Name(run.state), sorted(run.error.message.split("; ")), shape(service, run)))
    if pipeline is failures:  # on Argo the reason may come too late for the status
        for one in ended:
            ((*_, outputs, _),) = one[2]["final"]
            outputs["Output"] = outputs["Output"][: len("exit-handler-1 FAILED")]
    assert ended[0] == ended[1]


def workflows_of(cluster, run_id: str) -> list[dict]:
    return [one for one in cluster.workflows().values() if one["metadata"]["labels"]["pipeline/runid"] == run_id]


def state_folder(argo, run_id: str) -> Path:
    return argo.service.data_dir / "artifacts" / "mlmesh-state" / "default" / "runs" / run_id


def has_begun(run) -> bool:
    return any(task.executor_detail.main_job for task in run.run_details.task_details)


NASTY = "{{workflow.name}} {{inputs.parameters.path}} {{{{= $(HOME) $$ $(MLMESH_NOTHING) \" ' \\ \n é }}"


def test_text_of_users_is_no_variable_and_lost_pods_are_made_again(argo, cluster, compile_pipeline):
    run = argo.run(compile_pipeline(evicted, caching=False), {"text": NASTY})
    assert run.state == run_pb2.SUCCEEDED, run.error
    ended = shape(argo, run)
    assert ended["evicted"][0][2] == {"Output": NASTY}
    assert ended["shell"][0][2] == {"done": NASTY}
    by_name = {task.display_name: task for task in run.run_details.task_details}
    assert len(by_name["evicted"].executor_detail.failed_main_jobs) == 1
    place = f"{argo.service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{by_name['shell'].task_id}"
    assert httpx.get(f"{place}/log").text == NASTY + "\n"
    assert httpx.get(f"{place}/artifacts/model").text == "n=3"


def test_tasks_are_answered_from_the_cache(argo, compile_pipeline):
    spec = compile_pipeline(artifacts)
    source = argo.service.data_dir / "artifacts" / "imported"
    source.write_text("imported")
    runs = [argo.run(spec, {"text": "cached", "place": source.as_uri()}) for _ in range(2)]
    first, second = ({task.display_name: task for task in run.run_details.task_details} for run in runs)
    assert second["make"].state == run_pb2.SKIPPED
    assert second["make"].executor_detail.pre_caching_check_job == f"cache/{first['make'].task_id}"
    assert [STATE.Name(run.state) for run in runs] == ["SUCCEEDED", "SUCCEEDED"]
    assert [shape(argo, run)["read"][0][2] for run in runs] == [{"Output": "cached!6"}] * 2


def test_a_failed_run_is_retried_from_what_failed(argo, cluster, compile_pipeline, tmp_path):
    spec = compile_pipeline(wants, caching=False)
    run = argo.run(spec, {"place": str(tmp_path / "it")})
    assert run.state == run_pb2.FAILED
    assert "FileNotFoundError: not there yet" in run.error.message
    assert {name: one[0][0] for name, one in shape(argo, run).items()} == {
        "say": "SUCCEEDED",
        "want": "FAILED",
        "say-2": "SKIPPED",
    }
    (tmp_path / "it").touch()
    argo.runs.RetryRun(run_pb2.RetryRunRequest(run_id=run.run_id))
    run = argo.wait(run.run_id)
    assert run.state == run_pb2.SUCCEEDED, run.error
    tries = sorted(workflows_of(cluster, run.run_id), key=lambda one: one["metadata"]["name"])
    assert [one["metadata"]["labels"]["pipelines.mlmesh.dev/try"] for one in tries] == ["1", "2"]
    pods = [node["templateName"] for node in tries[1]["status"]["nodes"].values() if node["type"] == "Pod"]
    assert sorted(pods) == ["driver", "driver", "driver", "exec-say-2", "exec-want"]  # and not exec-say
    want_task = next(task for task in run.run_details.task_details if task.display_name == "want")
    assert want_task.executor_detail.main_job == f"{want_task.task_id}/2"
    assert list(want_task.executor_detail.failed_main_jobs) == [f"{want_task.task_id}/1"]


@dsl.pipeline(name="argo-follows")
def follows(place: str):
    status = final()
    with dsl.ExitHandler(status):
        want(place=place, text="x")
    inner(n=1)


def test_a_retry_runs_again_what_follows_from_what_it_runs_again(argo, cluster, compile_pipeline, tmp_path):
    run = argo.run(compile_pipeline(follows, caching=False), {"place": str(tmp_path / "it")})
    assert run.state == run_pb2.FAILED
    (tmp_path / "it").touch()
    argo.runs.RetryRun(run_pb2.RetryRunRequest(run_id=run.run_id))
    run = argo.wait(run.run_id)
    assert run.state == run_pb2.SUCCEEDED, run.error
    ended = shape(argo, run)
    assert ended["final"][0][2]["Output"].startswith("exit-handler-1 COMPLETE")  # it had succeeded, with FAILED
    second = max(workflows_of(cluster, run.run_id), key=lambda one: one["metadata"]["name"])
    pods = [node["templateName"] for node in second["status"]["nodes"].values() if node["type"] == "Pod"]
    assert sorted(pods) == ["driver"] * 4 + ["exec-final", "exec-want"]  # and nothing of what is in `inner`


def test_a_rerun_takes_over_what_it_does_not_run_anew(argo, cluster, compile_pipeline):
    source = argo.service.data_dir / "artifacts" / "imported"
    source.write_text("imported")
    spec = compile_pipeline(artifacts, caching=False)
    first = argo.run(spec, {"text": "taken over", "place": source.as_uri()})
    analysis = run_analysis_pb2_grpc.RunAnalysisServiceStub(argo.channel)
    request = run_analysis_pb2.RerunRunRequest(name=f"runs/{first.run_id}", from_tasks=["read"])
    second = argo.wait(analysis.RerunRun(request).run_id)
    assert second.state == run_pb2.SUCCEEDED, second.error
    assert shape(argo, second)["read"] == shape(argo, first)["read"]
    (workflow,) = workflows_of(cluster, second.run_id)
    pods = [node["templateName"] for node in workflow["status"]["nodes"].values() if node["type"] == "Pod"]
    assert sorted(set(pods)) == ["driver", "exec-read"]


def test_a_log_is_followed_until_the_pod_ends_and_kept_when_it_is_gone(argo, cluster, compile_pipeline, tmp_path):
    run_id = argo.create(compile_pipeline(waits, caching=False), {"place": str(tmp_path / "it")}).run_id
    run = argo.wait_until(run_id, has_begun)
    task = run.run_details.task_details[0].task_id
    place = f"{argo.service.http}/apis/v2beta1/runs/{run_id}/tasks/{task}/log"
    with httpx.stream("GET", place, params={"follow": "true"}, timeout=20) as log:
        lines = log.iter_lines()
        assert any("waiting for it" in line for line in lines)
        assert not argo.get(run_id).finished_at.seconds
        (tmp_path / "it").touch()
        rest = list(lines)
    assert any("executor output file" in line for line in rest)
    argo.wait(run_id)
    for path in cluster.folder.glob("argo-waits-*.log"):
        path.unlink()
    assert "waiting for it" in httpx.get(place).text


def test_a_run_is_terminated_and_deleted(argo, cluster, compile_pipeline, tmp_path):
    run_id = argo.create(compile_pipeline(waits, caching=False), {"place": str(tmp_path / "never")}).run_id
    argo.wait_until(run_id, has_begun)
    argo.runs.TerminateRun(run_pb2.TerminateRunRequest(run_id=run_id))
    run = argo.wait(run_id)
    assert run.state == run_pb2.CANCELED
    assert [STATE.Name(one.state) for one in run.run_details.task_details] == ["CANCELED"]
    (workflow,) = workflows_of(cluster, run_id)
    assert workflow["spec"]["shutdown"] == "Terminate"
    assert state_folder(argo, run_id).exists()
    argo.runs.DeleteRun(run_pb2.DeleteRunRequest(run_id=run_id))
    assert workflows_of(cluster, run_id) == []
    assert not any(path.is_file() for path in state_folder(argo, run_id).rglob("*"))
    with pytest.raises(grpc.RpcError) as caught:
        argo.get(run_id)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_faults_of_the_cluster_delay_a_run_and_make_no_second_workflow(argo, cluster, compile_pipeline, tmp_path):
    cluster.api.befallen.clear()
    cluster.api.faults = {"create": ["lost"], "list": [503], "watch": ["gone"], "fetch": [500]}
    run_id = argo.create(compile_pipeline(waits, caching=False), {"place": str(tmp_path / "it")}).run_id
    argo.wait_until(run_id, has_begun)
    assert {"lost", 500} <= set(cluster.api.befallen)
    assert len(workflows_of(cluster, run_id)) == 1
    cluster.go_away()
    (tmp_path / "it").touch()
    deadline = time.monotonic() + 20
    while workflows_of(cluster, run_id)[0]["status"]["phase"] != "Succeeded":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert argo.get(run_id).state == run_pb2.RUNNING
    cluster.come_back()
    run = argo.wait(run_id)
    assert run.state == run_pb2.SUCCEEDED, run.error
    assert len(workflows_of(cluster, run_id)) == 1
    cluster.api.faults = {}


def test_a_killed_service_finds_its_workflow_again(argo, cluster, compile_pipeline, tmp_path):
    run_id = argo.create(compile_pipeline(waits, caching=False), {"place": str(tmp_path / "it")}).run_id
    argo.wait_until(run_id, has_begun)
    argo.service.kill()
    (tmp_path / "it").touch()
    argo.service.start()
    argo.connect()
    run = argo.wait(run_id)
    assert run.state == run_pb2.SUCCEEDED, run.error
    assert len(workflows_of(cluster, run_id)) == 1
    (task,) = run.run_details.task_details
    assert task.executor_detail.main_job == f"{task.task_id}/1"
    assert not task.executor_detail.failed_main_jobs


def test_what_the_cluster_refuses_fails_the_run_with_its_words(argo, cluster, compile_pipeline):
    cluster.api.faults = {"create": [422]}
    run = argo.run(compile_pipeline(waits, caching=False), {"place": "/it"})
    assert run.state == run_pb2.FAILED
    assert "said by the test" in run.error.message
    cluster.api.faults = {}


def test_a_workflow_that_is_gone_fails_its_run(argo, cluster, compile_pipeline, tmp_path):
    run_id = argo.create(compile_pipeline(waits, caching=False), {"place": str(tmp_path / "it")}).run_id
    argo.wait_until(run_id, has_begun)
    (workflow,) = workflows_of(cluster, run_id)
    path = f"/apis/argoproj.io/v1alpha1/namespaces/default/workflows/{workflow['metadata']['name']}"
    assert httpx.delete(cluster.url + path).status_code == 200
    run = argo.wait(run_id)
    (tmp_path / "it").touch()
    assert run.state == run_pb2.FAILED
    assert "no longer in the cluster" in run.error.message


@pytest.mark.parametrize("account", ["Not A Name", "a" * 300, "x{{y}}"])
def test_names_that_kubernetes_does_not_take_are_refused(argo, compile_pipeline, account):
    with pytest.raises(grpc.RpcError) as caught:
        argo.create(compile_pipeline(waits), {"place": "/it"}, service_account=account)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "service_account" in caught.value.details()
