"""What becomes of a run: its history, its errors; retry, terminate, clone, archive, delete."""

import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import experiment_pb2, pipeline_pb2, run_pb2

State = run_pb2.RuntimeState


@dsl.component
def mark(folder: str, name: str):
    with open(f"{folder}/{name}", "a") as file:
        file.write("x")


@dsl.component
def work(folder: str, item: int) -> int:
    import os

    with open(f"{folder}/work-{item}", "a") as file:
        file.write("x")
    if item == 2 and not os.path.exists(f"{folder}/ok"):
        raise ValueError(f"item {item} is bad")
    return item


@dsl.component
def note(folder: str, status: PipelineTaskFinalStatus):
    with open(f"{folder}/statuses", "a") as file:
        file.write(f"{status.state} {status.error_message}\n")


@dsl.component
def add_up(folder: str, values: list) -> int:
    with open(f"{folder}/sum", "a") as file:
        file.write("x")
    return sum(values)


@dsl.pipeline
def inner(folder: str, items: list) -> int:
    with dsl.ParallelFor(items) as item:
        made = work(folder=folder, item=item).set_caching_options(False)
    return add_up(folder=folder, values=dsl.Collected(made.output)).set_caching_options(False).output


@dsl.pipeline(name="flawed")
def flawed(folder: str, items: list = [1, 2, 3], extra: bool = False):  # noqa: B006
    at_exit = note(folder=folder).set_caching_options(False)
    with dsl.ExitHandler(at_exit):
        first = mark(folder=folder, name="first").set_caching_options(False)
        inner(folder=folder, items=items).after(first)
        with dsl.If(extra == True):  # noqa: E712
            mark(folder=folder, name="extra").set_caching_options(False)


def _history(thing) -> list[str]:
    times = [status.update_time.ToNanoseconds() for status in thing.state_history]
    assert times == sorted(times)
    assert thing.state_history[-1].state == thing.state
    return [State.Name(status.state) for status in thing.state_history]


def _marks(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_failure_is_explained_and_a_retry_runs_what_it_must(client, compile_pipeline, by_name, tmp_path):
    run = client.run(compile_pipeline(flawed), {"folder": str(tmp_path)})
    assert run.state == State.FAILED
    reason = "ValueError: item 2 is bad"
    for word in ("'exit-handler-1'", "'inner'", "'for-loop-1'", "iteration 1", "'work'", reason):
        assert word in run.error.message, run.error.message
    assert run.error.message.index("'exit-handler-1'") < run.error.message.index(reason)
    assert run.error.code != 0
    tasks = by_name(run)
    (failed,) = [task for task in run.run_details.task_details if task.display_name == "work" and task.error.message]
    assert (failed.state, failed.error.message.endswith(reason)) == (State.FAILED, True)
    for task in run.run_details.task_details:
        assert _history(task)[0] == "PENDING"
        if task.state == State.FAILED:
            assert reason in task.error.message
            assert reason in task.state_history[-1].error.message
    assert tasks["add-up"].state == State.SKIPPED and "for-loop-1 failed" in tasks["add-up"].error.message
    assert tasks["condition-2"].state == State.SKIPPED and "condition" in tasks["condition-2"].error.message
    assert _history(run) == ["PENDING", "RUNNING", "FAILED"]
    assert run.state_history[-1].error == run.error
    assert tasks["note"].state == State.SUCCEEDED

    (tmp_path / "ok").touch()
    before = {task.task_id: task for task in run.run_details.task_details}
    client.runs.RetryRun(run_pb2.RetryRunRequest(run_id=run.run_id))
    again = client.wait(run.run_id)
    assert again.state == State.SUCCEEDED, again.error
    assert not again.HasField("error")
    statuses = _marks(tmp_path)
    assert statuses.pop("statuses").splitlines()[0].startswith("FAILED ")
    assert (tmp_path / "statuses").read_text().splitlines()[1].startswith("COMPLETE ")
    assert statuses == {"first": "x", "work-1": "x", "work-2": "xx", "work-3": "x", "sum": "x", "ok": ""}
    assert _history(again) == ["PENDING", "RUNNING", "FAILED", "PENDING", "RUNNING", "SUCCEEDED"]
    assert {task.task_id for task in again.run_details.task_details} == set(before)
    for task in again.run_details.task_details:
        was = before[task.task_id]
        if task.display_name == "work" and was.state == State.FAILED:
            assert _history(task) == ["PENDING", "RUNNING", "FAILED", "PENDING", "RUNNING", "SUCCEEDED"]
            assert list(task.executor_detail.failed_main_jobs) == [f"{task.task_id}/1"]
            assert task.executor_detail.main_job == f"{task.task_id}/2"
        elif task.display_name in {"work", "mark", "condition-2"}:
            assert task == was  # was not run again
    ended = again.finished_at.ToNanoseconds()
    assert all(task.end_time.ToNanoseconds() <= ended for task in again.run_details.task_details)
    assert again.finished_at.ToNanoseconds() > run.finished_at.ToNanoseconds()


@dsl.component
def fail_until(path: str):
    import os

    if not os.path.exists(path):
        raise RuntimeError("not yet")


@dsl.component
def items_of(path: str) -> list:
    import os

    return [1] if os.path.exists(path) else [1, 2, 3]


@dsl.pipeline(name="shrinks")
def shrinks(folder: str, path: str):
    first = fail_until(path=path).set_caching_options(False)
    listed = items_of(path=path).set_caching_options(False).after(first).ignore_upstream_failure()
    with dsl.ParallelFor(listed.output) as item:
        work(folder=folder, item=item).set_caching_options(False)


def test_what_followed_a_failure_runs_again_with_what_there_is_now(client, compile_pipeline, by_name, tmp_path):
    (tmp_path / "ok").touch()
    path = tmp_path / "now"
    run = client.run(compile_pipeline(shrinks), {"folder": str(tmp_path), "path": str(path)})
    assert run.state == State.FAILED and by_name(run)["for-loop-1"].state == State.SUCCEEDED
    path.touch()
    client.runs.RetryRun(run_pb2.RetryRunRequest(run_id=run.run_id))
    run = client.wait(run.run_id)
    assert run.state == State.SUCCEEDED, run.error
    tasks = by_name(run)
    states = [State.Name(tasks[f"for-loop-1[{number}]"].state) for number in range(3)]
    assert states == ["SUCCEEDED", "SKIPPED", "SKIPPED"]
    assert "fewer items" in tasks["for-loop-1[2]"].error.message
    assert all(task.state in {State.SUCCEEDED, State.SKIPPED} for task in run.run_details.task_details)
    assert [(tmp_path / f"work-{number}").read_text() for number in (1, 2, 3)] == ["xx", "x", "x"]


@dsl.component
def held(folder: str):
    import os
    import time

    open(f"{folder}/started", "a").close()
    while not os.path.exists(f"{folder}/go"):
        time.sleep(0.02)


@dsl.pipeline(name="holds")
def holds(folder: str):
    after = held(folder=folder).set_caching_options(False)
    mark(folder=folder, name="last").set_caching_options(False).after(after)


def _terminate(client, run_id: str) -> run_pb2.Run:
    client.runs.TerminateRun(run_pb2.TerminateRunRequest(run_id=run_id))
    run = client.wait(run_id)
    assert run.state == State.CANCELED
    assert run.error.code == grpc.StatusCode.CANCELLED.value[0] and "terminated" in run.error.message
    assert _history(run)[-2:] == ["CANCELING", "CANCELED"]
    for task in run.run_details.task_details:
        assert task.state in {State.CANCELED, State.SUCCEEDED}
        _history(task)
    return run


def test_a_run_that_waits_for_its_turn_is_terminated_at_once(make_service, connect, compile_pipeline, tmp_path):
    client = connect(make_service(MAX_ACTIVE_RUNS="1", TERMINATE_GRACE_SECONDS="0.2"))
    spec = compile_pipeline(holds)
    first = client.create(spec, {"folder": str(tmp_path)}).run_id
    client.wait_until(first, lambda run: run.state == State.RUNNING)
    second = client.create(spec, {"folder": str(tmp_path)}).run_id
    run = _terminate(client, second)
    assert _history(run) == ["PENDING", "CANCELING", "CANCELED"] and not run.run_details.task_details
    assert client.get(first).state == State.RUNNING
    third = client.create(spec, {"folder": str(tmp_path)}).run_id
    client.runs.DeleteRun(run_pb2.DeleteRunRequest(run_id=third))
    with pytest.raises(grpc.RpcError, match="not found"):
        client.get(third)
    _terminate(client, first)
    assert not (tmp_path / "last").exists()


@dsl.component
def fail():
    raise RuntimeError("always")


@dsl.pipeline(name="backs-off")
def backs_off():
    fail().set_retry(num_retries=3, backoff_duration="3600s", backoff_max_duration="3600s").set_caching_options(False)


def test_a_run_is_terminated_while_it_waits_to_try_again(client, compile_pipeline, by_name):
    run_id = client.create(compile_pipeline(backs_off)).run_id
    client.wait_until(
        run_id, lambda run: any(by_name(run)[name].executor_detail.failed_main_jobs for name in by_name(run))
    )
    task = by_name(_terminate(client, run_id))["fail"]
    assert task.state == State.CANCELED and len(task.executor_detail.failed_main_jobs) == 1


@pytest.fixture
def silent_index() -> Iterator[socket.socket]:
    """A package index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield server


def test_a_run_is_terminated_while_packages_are_installed(client, compile_pipeline, silent_index):
    @dsl.component(
        packages_to_install=["mlmesh-there-is-no-such-package"],
        pip_index_urls=[f"http://127.0.0.1:{silent_index.getsockname()[1]}/simple"],
        pip_trusted_hosts=["127.0.0.1"],
    )
    def needs():
        pass

    @dsl.pipeline(name="installs")
    def installs():
        needs().set_caching_options(False)

    run_id = client.create(compile_pipeline(installs)).run_id
    connection, _ = silent_index.accept()
    with connection:
        _terminate(client, run_id)
        connection.settimeout(10)
        while connection.recv(4096):  # what pip asks for; then its end: no pip is left
            pass


@dsl.pipeline(name="marks")
def marks(folder: str, name: str = "one"):
    mark(folder=folder, name=name).set_caching_options(False)


def test_a_run_is_cloned_from_what_get_run_gives(client, compile_pipeline, tmp_path):
    spec = compile_pipeline(marks)
    inline = client.run(spec, {"folder": str(tmp_path), "name": "inline"}, description="why", service_account="robot")
    pipeline = pipeline_pb2.CreatePipelineAndVersionRequest()
    pipeline.pipeline.display_name = "cloned"
    json_format.ParseDict(spec, pipeline.pipeline_version.pipeline_spec)
    made = client.pipelines.CreatePipelineAndVersion(pipeline)
    asked = run_pb2.Run(display_name="of a version")
    asked.pipeline_version_reference.pipeline_id = made.pipeline_id
    json_format.ParseDict({"parameters": {"folder": str(tmp_path), "name": "version"}}, asked.runtime_config)
    by_version = client.wait(client.runs.CreateRun(run_pb2.CreateRunRequest(run=asked)).run_id)
    assert by_version.pipeline_version_reference.pipeline_version_id
    for run in (inline, by_version):
        clone = client.wait(client.runs.CreateRun(run_pb2.CreateRunRequest(run=run)).run_id)  # as it came, ids and all
        assert clone.state == State.SUCCEEDED and clone.run_id != run.run_id
        for field in (
            "pipeline_spec",
            "pipeline_version_reference",
            "runtime_config",
            "description",
            "service_account",
        ):
            assert getattr(clone, field) == getattr(run, field)
        assert clone.WhichOneof("pipeline_source") == run.WhichOneof("pipeline_source")
        assert clone.created_at.ToNanoseconds() > run.finished_at.ToNanoseconds()
    assert _marks(tmp_path) == {"inline": "xx", "version": "xx"}


def _code(call, request) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    assert "Traceback" not in caught.value.details() and caught.value.details()
    return caught.value.code().name


def test_what_may_not_be_done_has_its_code(client, compile_pipeline, tmp_path):
    experiment = client.experiments.CreateExperiment(
        experiment_pb2.CreateExperimentRequest(experiment=experiment_pb2.Experiment(display_name="lifecycle"))
    )
    spec = compile_pipeline(marks)
    run = client.run(spec, {"folder": str(tmp_path)}, experiment_id=experiment.experiment_id)
    failed = client.run(compile_pipeline(flawed), {"folder": "/none"}, experiment_id=experiment.experiment_id)
    assert (run.state, failed.state) == (State.SUCCEEDED, State.FAILED)
    runs, experiments = client.runs, client.experiments
    terminate, retry = run_pb2.TerminateRunRequest, run_pb2.RetryRunRequest
    assert _code(runs.TerminateRun, terminate(run_id=run.run_id)) == "FAILED_PRECONDITION"
    assert _code(runs.TerminateRun, terminate(run_id=failed.run_id)) == "FAILED_PRECONDITION"
    assert _code(runs.RetryRun, retry(run_id=run.run_id)) == "FAILED_PRECONDITION"
    experiments.ArchiveExperiment(experiment_pb2.ArchiveExperimentRequest(experiment_id=experiment.experiment_id))
    assert client.get(run.run_id).storage_state == run_pb2.Run.ARCHIVED
    assert _code(runs.RetryRun, retry(run_id=failed.run_id)) == "FAILED_PRECONDITION"
    assert _code(runs.UnarchiveRun, run_pb2.UnarchiveRunRequest(run_id=run.run_id)) == "FAILED_PRECONDITION"
    asked = run_pb2.Run(display_name="x", experiment_id=experiment.experiment_id)
    json_format.ParseDict(spec, asked.pipeline_spec)
    asked.runtime_config.parameters["folder"].string_value = str(tmp_path)
    assert _code(runs.CreateRun, run_pb2.CreateRunRequest(run=asked)) == "FAILED_PRECONDITION"
    runs.ArchiveRun(run_pb2.ArchiveRunRequest(run_id=run.run_id))  # twice is once
    experiments.UnarchiveExperiment(experiment_pb2.UnarchiveExperimentRequest(experiment_id=experiment.experiment_id))
    assert client.get(run.run_id).storage_state == run_pb2.Run.ARCHIVED  # as KFP's: each is unarchived by itself
    runs.UnarchiveRun(run_pb2.UnarchiveRunRequest(run_id=run.run_id))
    runs.DeleteRun(run_pb2.DeleteRunRequest(run_id=failed.run_id))  # an archived one
    experiments.DeleteExperiment(experiment_pb2.DeleteExperimentRequest(experiment_id=experiment.experiment_id))
    assert client.get(run.run_id).experiment_id == experiment.experiment_id  # its runs stay
    runs.ArchiveRun(run_pb2.ArchiveRunRequest(run_id=run.run_id))
    runs.UnarchiveRun(run_pb2.UnarchiveRunRequest(run_id=run.run_id))
    for call, request in (
        (runs.GetRun, run_pb2.GetRunRequest),
        (runs.TerminateRun, terminate),
        (runs.RetryRun, retry),
        (runs.ArchiveRun, run_pb2.ArchiveRunRequest),
        (runs.UnarchiveRun, run_pb2.UnarchiveRunRequest),
        (runs.DeleteRun, run_pb2.DeleteRunRequest),
    ):
        assert _code(call, request(run_id=failed.run_id)) == "NOT_FOUND"
        assert _code(call, request()) == "INVALID_ARGUMENT"
    for call, request in (
        (experiments.GetExperiment, experiment_pb2.GetExperimentRequest),
        (experiments.ArchiveExperiment, experiment_pb2.ArchiveExperimentRequest),
        (experiments.DeleteExperiment, experiment_pb2.DeleteExperimentRequest),
    ):
        assert _code(call, request(experiment_id="none")) == "NOT_FOUND"
        assert _code(call, request()) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("namespace", ["../../etc", "a/b", "..", "Upper", "-a", "a-", "x" * 64, "a\n", "\u00e4"])
def test_a_namespace_is_a_name_and_no_path(client, compile_pipeline, namespace):
    bad = experiment_pb2.Experiment(display_name="x", namespace=namespace)
    create = client.experiments.CreateExperiment
    assert _code(create, experiment_pb2.CreateExperimentRequest(experiment=bad)) == "INVALID_ARGUMENT"
    pipeline = pipeline_pb2.Pipeline(display_name="x", namespace=namespace)
    create = client.pipelines.CreatePipeline
    assert _code(create, pipeline_pb2.CreatePipelineRequest(pipeline=pipeline)) == "INVALID_ARGUMENT"


def test_what_is_too_long_for_a_database_is_refused(client, compile_pipeline, tmp_path):
    spec = compile_pipeline(marks)
    for fields in ({"service_account": "x" * 254}, {"description": "x" * 10_001}, {"name": "x" * 192}):
        with pytest.raises(grpc.RpcError, match="at most"):
            client.create(spec, {"folder": str(tmp_path)}, **fields)
    spec = compile_pipeline(backs_off)
    deep = {name: spec[name] for name in ("pipelineInfo", "schemaVersion", "deploymentSpec")}
    (leaf,) = spec["root"]["dag"]["tasks"]
    component = spec["root"]["dag"]["tasks"][leaf]["componentRef"]["name"]
    deep["components"] = dict(spec["components"])
    inner = {"dag": {"tasks": {"x" * 250: {"componentRef": {"name": component}}}}}
    for level in range(9):
        deep["components"][f"level-{level}"] = inner
        inner = {"dag": {"tasks": {"x" * 250: {"componentRef": {"name": f"level-{level}"}}}}}
    deep["root"] = inner
    with pytest.raises(grpc.RpcError, match="2000 characters"):
        client.create(deep)
