"""The engine, through gRPC: what KFP's DSL can say, run as processes."""

import os
from typing import NamedTuple

import pytest
import requests
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2


@dsl.component
def add(a: int, b: int = 3) -> int:
    return a + b


@dsl.component
def check_equal(got: int, expected: int):
    assert got == expected, f"{got} is not {expected}"


@dsl.component
def make_data(rows: int, data: Output[Dataset], scores: Output[Metrics], note: dsl.OutputPath(str)):
    with open(data.path, "w") as file:
        file.write("row\n" * rows)
    data.metadata["rows"] = rows
    scores.log_metric("accuracy", 0.75)
    with open(note, "w") as file:
        file.write("written")


@dsl.component
def train(data: Input[Dataset], model: Output[Model], note: str = "") -> NamedTuple(
    "out", [("rows", int), ("kind", str)]
):
    from collections import namedtuple

    with open(data.path) as file:
        rows = len(file.readlines())
    assert data.metadata["rows"] == rows
    model.framework = "none"
    with open(model.path, "w") as file:
        file.write(f"{rows} {note}")
    return namedtuple("out", ["rows", "kind"])(rows, type(model).__name__)


@dsl.pipeline(name="artifacts")
def artifacts(rows: int = 3):
    made = make_data(rows=rows)
    trained = train(data=made.outputs["data"], note=made.outputs["note"])
    check_equal(got=trained.outputs["rows"], expected=rows)


def test_artifacts_and_parameters_pass_from_task_to_task(client, compile_pipeline, by_name, shared_service):
    run = client.run(compile_pipeline(artifacts), {"rows": 4})
    assert run.state == run_pb2.SUCCEEDED, run.error
    assert [run_pb2.RuntimeState.Name(status.state) for status in run.state_history] == [
        "PENDING",
        "RUNNING",
        "SUCCEEDED",
    ]
    tasks = by_name(run)
    assert set(tasks) == {"make-data", "train", "check-equal"}
    assert tasks["make-data"].child_tasks[0].task_id == tasks["train"].task_id
    base = f"{shared_service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{tasks['train'].task_id}"
    outputs = requests.get(f"{base}/outputs", timeout=5).json()
    assert outputs["parameters"] == {"rows": 4, "kind": "Model"}
    (model,) = outputs["artifacts"]["model"]
    assert model["type"] == "system.Model"
    assert model["metadata"] == {"framework": "none"}
    assert model["uri"].startswith("file:///")
    assert f"/default/artifacts/{run.run_id}/train/model" in model["uri"]
    content = requests.get(f"{base}/artifacts/model", timeout=5)
    assert content.content == b"4 written"
    for path, words in [
        ("artifacts/nodel", "the task has: "),
        ("artifacts/model?index=1", "not found at index 1; it has 1"),
        ("artifacts/model?download=link", "read it without download=link"),
        ("log?follow=maybe", "follow: must be true or false"),
    ]:
        assert words in requests.get(f"{base}/{path}", timeout=5).json()["message"]
    known = requests.get(f"{base}/artifacts/model", headers={"If-None-Match": content.headers["etag"]}, timeout=5)
    assert (known.status_code, known.content) == (304, b"")
    part = requests.get(f"{base}/artifacts/model", headers={"Range": "bytes=2-4"}, timeout=5)
    assert (part.status_code, part.content) == (206, b"wri")
    read = client.runs.ReadArtifact(
        run_pb2.ReadArtifactRequest(run_id=run.run_id, node_id=tasks["train"].task_id, artifact_name="model")
    )
    assert read.data == b"4 written"
    log = requests.get(f"{base}/log", timeout=5)
    assert "KFP Executor" in log.text
    for number in ("9" * 5000, "-1", "x", "²"):  # Python itself reads no more than 4300 digits
        assert requests.get(f"{base}/log", params={"attempt": number}, timeout=5).status_code == 400
        assert requests.get(f"{base}/artifacts/model", params={"index": number}, timeout=5).status_code == 400


def test_a_repeated_run_is_answered_from_the_cache(client, compile_pipeline, by_name):
    spec = compile_pipeline(artifacts)
    first = client.run(spec, {"rows": 11})
    again = client.run(spec, {"rows": 11})
    assert again.state == run_pb2.SUCCEEDED
    done, cached = by_name(first), by_name(again)
    for name in ("make-data", "train", "check-equal"):
        assert cached[name].state == run_pb2.SKIPPED
        assert cached[name].executor_detail.pre_caching_check_job == f"cache/{done[name].task_id}"
        assert not cached[name].executor_detail.main_job
    other = client.run(spec, {"rows": 12})
    assert by_name(other)["make-data"].state == run_pb2.SUCCEEDED


def test_an_artifact_that_was_changed_is_not_taken_from_the_cache(client, compile_pipeline, by_name, shared_service):
    spec = compile_pipeline(artifacts)
    first = client.run(spec, {"rows": 13})
    path = shared_service.data_dir / "artifacts/default/artifacts" / first.run_id / "make-data/data"
    path.write_text("spoilt\n")
    again = by_name(client.run(spec, {"rows": 13}))
    assert again["make-data"].state == run_pb2.SUCCEEDED


@dsl.component
def flip(face: str) -> str:
    return face


@dsl.component
def numbers() -> list:
    return [1, 2, 3]


@dsl.component
def total(values: list) -> int:
    return sum(values)


@dsl.pipeline
def inner(n: int) -> int:
    return add(a=n, b=100).output


@dsl.pipeline(name="control-flow")
def control_flow(face: str = "heads"):
    coin = flip(face=face)
    with dsl.If(coin.output == "heads"):
        heads = add(a=1, b=1)
    with dsl.Elif(coin.output == "edge"):
        edge = add(a=2, b=2)
    with dsl.Else():
        tails = add(a=3, b=3)
    chosen = dsl.OneOf(heads.output, edge.output, tails.output)
    nested = inner(n=chosen)
    check_equal(got=nested.output, expected=102).set_display_name("after-oneof")
    with dsl.ParallelFor([10, 20]) as item:
        one = add(a=item, b=1)
    check_equal(got=total(values=dsl.Collected(one.output)).output, expected=32).set_display_name("after-static-loop")
    with dsl.ParallelFor(numbers().output, parallelism=1) as item:
        two = add(a=item, b=0)
    check_equal(got=total(values=dsl.Collected(two.output)).output, expected=6).set_display_name("after-dynamic-loop")
    with dsl.ParallelFor([{"x": 1, "y": 2}, {"x": 3, "y": 4}]) as item:
        pair = add(a=item.x, b=item.y)
        with dsl.If(pair.output > 3):
            flip(face=f"sum of {item.x} is {pair.output}").set_display_name("big")


def test_conditions_nested_dags_and_loops(client, compile_pipeline):
    run = client.run(compile_pipeline(control_flow))
    assert run.state == run_pb2.SUCCEEDED, run.error
    states: dict[str, list[int]] = {}
    for task in run.run_details.task_details:
        states.setdefault(task.display_name, []).append(task.state)
    assert states["after-oneof"] == states["after-static-loop"] == states["after-dynamic-loop"] == [run_pb2.SUCCEEDED]
    assert len(states["big"]) == 1
    skipped = [task for task in run.run_details.task_details if "condition does not hold" in task.error.message]
    assert len(skipped) == 3  # edge, tails, and the first pair


def test_the_other_branch(client, compile_pipeline, by_name):
    run = client.run(compile_pipeline(control_flow), {"face": "tails"})
    assert run.state == run_pb2.FAILED
    assert "after-oneof" not in run.error.message
    assert "task 'check-equal' failed" in run.error.message
    assert "AssertionError: 106 is not 102" in run.error.message


@dsl.component
def fail(message: str):
    raise ValueError(message)


@dsl.component
def report(status: dsl.PipelineTaskFinalStatus, marker: str) -> str:
    return f"{status.state} {status.error_message}"


@dsl.pipeline(name="exits")
def exits(marker: str):
    last = report(marker=marker)
    with dsl.ExitHandler(last):
        bad = fail(message="out of luck")
        add(a=1).after(bad).set_display_name("never")
        add(a=2).set_display_name("beside")


def test_a_failure_names_the_task_and_the_exit_handler_runs(client, compile_pipeline, by_name, shared_service):
    run = client.run(compile_pipeline(exits, caching=False), {"marker": "m"})
    assert run.state == run_pb2.FAILED
    assert "task 'fail' failed" in run.error.message
    assert "ValueError: out of luck" in run.error.message
    tasks = by_name(run)
    assert tasks["never"].state == run_pb2.SKIPPED
    assert tasks["never"].error.message == "not run: fail failed"
    assert tasks["beside"].state == run_pb2.SUCCEEDED
    assert tasks["fail"].executor_detail.failed_main_jobs == [f"{tasks['fail'].task_id}/1"]
    task_id = tasks["report"].task_id
    outputs = requests.get(f"{shared_service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{task_id}/outputs", timeout=5)
    assert outputs.json()["parameters"]["Output"].startswith("FAILED task 'fail' failed")


@dsl.component
def flaky(path: str) -> int:
    import os

    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise RuntimeError("not yet")
    return os.path.getsize(path)


@dsl.pipeline(name="retries")
def retries(path: str):
    task = flaky(path=path)
    task.set_retry(num_retries=3, backoff_duration="0s")
    task.set_caching_options(False)


def test_retries(client, compile_pipeline, by_name, tmp_path, shared_service):
    run = client.run(compile_pipeline(retries), {"path": str(tmp_path / "count")})
    assert run.state == run_pb2.SUCCEEDED, run.error
    detail = by_name(run)["flaky"]
    assert len(detail.executor_detail.failed_main_jobs) == 2
    assert detail.executor_detail.main_job.endswith("/3")
    url = f"{shared_service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{detail.task_id}/log"
    assert "RuntimeError: not yet" in requests.get(url, params={"attempt": 1}, timeout=5).text
    assert "RuntimeError" not in requests.get(url, timeout=5).text
    assert requests.get(url, params={"attempt": 9}, timeout=5).status_code == 404


@dsl.component
def environment() -> dict:
    import os

    return dict(os.environ)


@dsl.pipeline(name="environments")
def environments():
    environment().set_env_variable("FLAVOUR", "vanilla").set_caching_options(False)


def test_tasks_have_a_small_environment(make_service, connect, compile_pipeline, by_name, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_SERVICE", "x")
    monkeypatch.setenv("WANTED", "yes")
    client = connect(make_service(INGRESS_URL="http://127.0.0.1:1234", TASK_ENVIRONMENT="WANTED"))
    run = client.run(compile_pipeline(environments))
    assert run.state == run_pb2.SUCCEEDED, run.error
    task_id = by_name(run)["environment"].task_id
    url = f"{client.service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{task_id}/outputs"
    found = requests.get(url, timeout=5).json()["parameters"]["Output"]
    assert found["MLMESH_INGRESS"] == "http://127.0.0.1:1234"
    assert found["MLMESH_RUN_ID"] == run.run_id
    assert found["MLMESH_TASK_NAME"] == "environment"
    assert found["FLAVOUR"] == "vanilla"
    assert found["WANTED"] == "yes"
    assert not [name for name in found if "SECRET" in name or name.startswith("MLMESH_PIPELINE")]


@dsl.component(packages_to_install=["surely-not-a-package-of-anyone==1.2.3"])
def needy() -> int:
    return 1


@dsl.pipeline(name="needs")
def needs():
    needy()


def test_packages_that_may_not_be_installed_are_named(make_service, connect, compile_pipeline):
    client = connect(make_service(INSTALL_PACKAGES="false"))
    run = client.run(compile_pipeline(needs))
    assert run.state == run_pb2.FAILED
    assert "surely-not-a-package-of-anyone==1.2.3" in run.error.message


@dsl.pipeline(name="imports")
def imports(uri: str):
    found = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata={"rows": 2}, reimport=True)
    train(data=found.output)


def test_an_importer(client, compile_pipeline, by_name, tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("a\nb\n")
    run = client.run(compile_pipeline(imports), {"uri": path.as_uri()})
    assert run.state == run_pb2.SUCCEEDED, run.error
    missing = client.run(compile_pipeline(imports), {"uri": (tmp_path / "none").as_uri()})
    assert missing.state == run_pb2.FAILED
    assert "there is nothing at" in by_name(missing)["importer"].error.message


@dsl.component
def crash():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@dsl.component
def wrong(out: dsl.OutputPath(int)):
    with open(out, "w") as file:
        file.write("not a number")


@dsl.pipeline(name="crashes")
def crashes():
    crash()
    wrong()


def test_a_killed_task_and_a_wrong_output_say_so(client, compile_pipeline, by_name):
    run = client.run(compile_pipeline(crashes))
    tasks = by_name(run)
    assert "SIGKILL" in tasks["crash"].error.message
    assert "'out' was not written as JSON" in tasks["wrong"].error.message
    assert run.state == run_pb2.FAILED


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_independent_tasks_run_at_the_same_time(client, compile_pipeline, tmp_path):
    run = client.run(compile_pipeline(meets, caching=False), {"folder": str(tmp_path)})
    assert run.state == run_pb2.SUCCEEDED, run.error


@dsl.component
def meet(folder: str, me: str, other: str):
    import os
    import time

    open(os.path.join(folder, me), "w").close()
    deadline = time.monotonic() + 10
    while not os.path.exists(os.path.join(folder, other)):
        assert time.monotonic() < deadline, "the other did not come"
        time.sleep(0.01)


@dsl.pipeline(name="meets")
def meets(folder: str):
    meet(folder=folder, me="a", other="b")
    meet(folder=folder, me="b", other="a")


_ = Artifact
