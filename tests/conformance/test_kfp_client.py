"""The stock `kfp.Client` against the mesh: through Envoy, whose transcoder turns its REST into gRPC."""

import json
import threading
import time
import uuid
import warnings

import kfp_server_api
import pytest
from kfp import compiler, dsl
from kfp.client import Client
from kfp.dsl import Dataset, Input, Output

pytestmark = pytest.mark.conformance
warnings.simplefilter("ignore")


@dsl.component
def write(text: str, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write(text)


@dsl.component
def read(data: Input[Dataset]) -> int:
    with open(data.path) as file:
        return len(file.read())


@dsl.pipeline(name="write-and-read", description="Two tasks")
def write_and_read(text: str = "hello", scale: float = 1.5, tags: list = ["a"], options: dict = {"b": 1}):  # noqa: B006
    read(data=write(text=text).outputs["data"])


@dsl.component
def sleep_long():
    import time

    time.sleep(120)


@dsl.pipeline(name="sleeps")
def sleeps():
    sleep_long()


@pytest.fixture(scope="module")
def client(mesh):
    return Client(host=mesh.ingress)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "pipeline.yaml"
    compiler.Compiler().compile(write_and_read, str(path))
    return str(path)


def _wait(client, run_id, timeout=60):
    return client.wait_for_run_completion(run_id, timeout, sleep_duration=0.1)


def test_health(client):
    assert not client.get_kfp_healthz().multi_user


def test_a_run_from_a_function(client):
    experiment = client.create_experiment(f"functions {uuid.uuid4()}", description="of functions")
    assert client.create_experiment(experiment.display_name).experiment_id == experiment.experiment_id
    assert client.get_experiment(experiment_name=experiment.display_name).description == "of functions"
    result = client.create_run_from_pipeline_func(
        write_and_read,
        arguments={"text": "twelve chars", "scale": 2, "tags": ["x", 1], "options": {"c": [True, None]}},
        run_name="by function",
        experiment_name=experiment.display_name,
        enable_caching=False,
    )
    run = _wait(client, result.run_id)
    assert run.state == "SUCCEEDED"
    assert run.error is None
    assert [status.state for status in run.state_history] == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert run.runtime_config.parameters["text"] == "twelve chars"
    assert run.finished_at >= run.created_at
    tasks = {task.display_name: task for task in run.run_details.task_details}
    assert {name: task.state for name, task in tasks.items()} == {"write": "SUCCEEDED", "read": "SUCCEEDED"}
    listed = client.list_runs(experiment_id=experiment.experiment_id)
    assert [item.run_id for item in listed.runs] == [run.run_id]
    assert listed.total_size == 1


def test_a_run_from_a_package_and_from_the_cache(client, package):
    text = f"text {uuid.uuid4()}"
    first = client.create_run_from_pipeline_package(package, arguments={"text": text})
    assert _wait(client, first.run_id).state == "SUCCEEDED"
    second = client.create_run_from_pipeline_package(package, arguments={"text": text})
    run = _wait(client, second.run_id)
    assert run.state == "SUCCEEDED"
    assert {task.state for task in run.run_details.task_details} == {"SKIPPED"}
    assert all(task.executor_detail.pre_caching_check_job for task in run.run_details.task_details)


def test_pipelines_and_versions(client, package):
    name = f"uploaded {uuid.uuid4()}"
    pipeline = client.upload_pipeline(package, pipeline_name=name, description="first")
    assert client.get_pipeline_id(name) == pipeline.pipeline_id
    assert client.get_pipeline(pipeline.pipeline_id).display_name == name
    version = client.upload_pipeline_version(package, "second version", pipeline_id=pipeline.pipeline_id)
    versions = client.list_pipeline_versions(pipeline.pipeline_id, sort_by="created_at desc")
    assert [item.display_name for item in versions.pipeline_versions] == ["second version", name]
    got = client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    assert got.pipeline_spec["pipelineInfo"]["name"] == "write-and-read"
    experiment = client.create_experiment(f"versions {uuid.uuid4()}")
    run = client.run_pipeline(
        experiment.experiment_id,
        "of a version",
        params={"text": "x"},
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
    )
    assert _wait(client, run.run_id).state == "SUCCEEDED"
    assert any(item.pipeline_id == pipeline.pipeline_id for item in client.list_pipelines(page_size=100).pipelines)
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.delete_pipeline(pipeline.pipeline_id)
    assert caught.value.status == 400
    for item in versions.pipeline_versions:
        client.delete_pipeline_version(pipeline.pipeline_id, item.pipeline_version_id)
    client.delete_pipeline(pipeline.pipeline_id)
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.get_pipeline(pipeline.pipeline_id)
    assert caught.value.status == 404


def test_lists(client, package):
    experiment = client.create_experiment(f"lists {uuid.uuid4()}")
    for number in range(3):
        client.create_run_from_pipeline_package(
            package, run_name=f"run {number}", experiment_id=experiment.experiment_id
        )
    names, token = [], ""
    while True:
        page = client.list_runs(
            page_token=token, page_size=2, sort_by="created_at desc", experiment_id=experiment.experiment_id
        )
        names += [run.display_name for run in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert names == ["run 2", "run 1", "run 0"]
    wanted = json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": "run 1"}]})
    found = client.list_runs(experiment_id=experiment.experiment_id, filter=wanted)
    assert [run.display_name for run in found.runs] == ["run 1"]
    assert client.list_experiments(namespace="default").total_size >= 1


def test_archive_and_delete(client, package):
    run_id = client.create_run_from_pipeline_package(package).run_id
    _wait(client, run_id)
    client.archive_run(run_id)
    assert client.get_run(run_id).storage_state == "ARCHIVED"
    client.unarchive_run(run_id)
    assert client.get_run(run_id).storage_state == "AVAILABLE"
    client.delete_run(run_id)
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.get_run(run_id)
    assert caught.value.status == 404
    experiment = client.create_experiment(f"archived {uuid.uuid4()}")
    client.archive_experiment(experiment.experiment_id)
    assert client.get_experiment(experiment.experiment_id).storage_state == "ARCHIVED"
    client.unarchive_experiment(experiment.experiment_id)
    client.delete_experiment(experiment.experiment_id)


def test_terminate(client):
    result = client.create_run_from_pipeline_func(sleeps, enable_caching=False)
    deadline = time.monotonic() + 30
    while client.get_run(result.run_id).state != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.05)
    client.terminate_run(result.run_id)
    while (state := client.get_run(result.run_id).state) != "CANCELED":
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("call", "status", "word"),
    [
        (lambda client, package: client.get_run("none"), 404, "none"),
        (lambda client, package: client.list_runs(filter="{"), 400, "filter"),
        (lambda client, package: client.list_runs(sort_by="nope"), 400, "sort_by"),
        (
            lambda client, package: client.create_run_from_pipeline_package(package, arguments={"text": 3}),
            400,
            "runtime_config.parameters['text']",
        ),
        (
            lambda client, package: client.create_run_from_pipeline_package(package, arguments={"other": "x"}),
            400,
            "other",
        ),
    ],
)
def test_errors(client, package, call, status, word):
    with pytest.raises(kfp_server_api.ApiException) as caught:
        call(client, package)
    assert caught.value.status == status
    body = json.loads(caught.value.body)
    assert word in body["message"]
    assert "Traceback" not in caught.value.body


def test_a_runs_log_can_be_followed_through_the_ingress(mesh, client):
    import requests

    result = client.create_run_from_pipeline_func(
        write_and_read, arguments={"text": str(uuid.uuid4())}, enable_caching=False
    )
    run = _wait(client, result.run_id)
    task = next(task for task in run.run_details.task_details if task.display_name == "write")
    url = f"{mesh.ingress}/apis/v2beta1/runs/{run.run_id}/tasks/{task.task_id}/log"
    answer = requests.get(url, params={"follow": "true"}, timeout=10)
    assert answer.status_code == 200
    assert "KFP Executor" in answer.text


def test_many_clients_at_once(mesh, package):
    Client(host=mesh.ingress).create_experiment("many clients")  # its client asks first, then makes: a race
    states = []

    def submit():
        one = Client(host=mesh.ingress)
        result = one.create_run_from_pipeline_package(package, experiment_name="many clients")
        states.append(one.wait_for_run_completion(result.run_id, 60, sleep_duration=0.1).state)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert states == ["SUCCEEDED"] * 4


def test_recurring_runs(client, package):
    experiment = client.create_experiment(f"recurring {uuid.uuid4()}")
    made = client.create_recurring_run(
        experiment.experiment_id,
        "each second",
        description="by the clock",
        cron_expression="* * * ? * *",
        max_concurrency=2,
        params={"text": "[[Index]]"},
        pipeline_package_path=package,
    )
    assert (made.status, made.mode, made.max_concurrency) == ("ENABLED", "ENABLE", "2")
    assert made.trigger.cron_schedule.cron == "* * * ? * *" and made.description == "by the clock"

    def runs():
        return client.list_runs(experiment_id=experiment.experiment_id, sort_by="scheduled_at").runs or []

    deadline = time.monotonic() + 30
    while not runs() and time.monotonic() < deadline:
        time.sleep(0.1)
    client.disable_recurring_run(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    first = runs()[0]
    assert first.recurring_run_id == made.recurring_run_id and _wait(client, first.run_id).state == "SUCCEEDED"
    client.enable_recurring_run(made.recurring_run_id)
    listed = client.list_recurring_runs(experiment_id=experiment.experiment_id)
    assert [one.recurring_run_id for one in listed.recurring_runs] == [made.recurring_run_id]
    client.delete_recurring_run(made.recurring_run_id)
    assert not client.list_recurring_runs(experiment_id=experiment.experiment_id).recurring_runs
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.get_recurring_run(made.recurring_run_id)
    assert caught.value.status == 404


def test_recurring_runs_of_versions_and_by_their_old_names(client, package):
    experiment = client.create_experiment(f"recurring {uuid.uuid4()}")
    pipeline = client.upload_pipeline_from_pipeline_func(write_and_read, pipeline_name=f"recurring {uuid.uuid4()}")
    version = client.upload_pipeline_version_from_pipeline_func(
        write_and_read, pipeline_version_name="second", pipeline_id=pipeline.pipeline_id
    )
    made = client.create_recurring_run(
        experiment.experiment_id,
        "yearly",
        interval_second=31_536_000,
        start_time="2024-01-01T00:00:00Z",
        end_time="2024-06-01T00:00:00Z",
        no_catchup=True,
        enabled=False,
        version_id=version.pipeline_version_id,
        pipeline_id=pipeline.pipeline_id,
        enable_caching=False,
    )
    reference = made.pipeline_version_reference
    assert (reference.pipeline_id, reference.pipeline_version_id) == (pipeline.pipeline_id, version.pipeline_version_id)
    assert (made.status, made.no_catchup) == ("DISABLED", True)
    assert made.trigger.periodic_schedule.interval_second == "31536000"
    client.enable_job(made.recurring_run_id)
    client.disable_job(made.recurring_run_id)
    client.delete_job(made.recurring_run_id)
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.create_recurring_run(
            experiment.experiment_id, "bad", cron_expression="no", pipeline_package_path=package
        )
    assert caught.value.status == 400 and "cron" in caught.value.body


def test_the_namespace_that_a_user_chose(mesh, monkeypatch, tmp_path):
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    own = Client(host=mesh.ingress)
    assert own.get_user_namespace() == ""
    own.set_user_namespace("elsewhere")
    assert Client(host=mesh.ingress).get_user_namespace() == "elsewhere"
    with pytest.raises(kfp_server_api.ApiException) as caught:
        own.list_experiments(namespace="elsewhere")
    assert caught.value.status in {403, 404}
