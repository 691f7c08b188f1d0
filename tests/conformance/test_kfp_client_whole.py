"""Every public method of `kfp.Client`, with every parameter that it has, through the ingress.

A method or parameter that a newer kfp brings, and no test here uses, fails the last test.
"""

import inspect
import json
import tarfile
import time
import uuid
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import kfp_server_api
import pytest
from kfp import compiler, dsl
from kfp.client import Client

pytestmark = pytest.mark.conformance

NOT_SERVED: dict[str, str] = {}
"""Methods of the client that do not work here, and why; docs/pipeline.md says the same."""


@dsl.component
def say(text: str) -> str:
    if text == "fail":
        raise ValueError("told to fail")
    return text


@dsl.pipeline(name="says")
def says(text: str = "hello"):
    say(text=text)


@dsl.component
def wait_long():
    import time

    time.sleep(300)


@dsl.pipeline(name="waits")
def waits():
    wait_long()


class _Recorded:
    """A client that remembers which methods were called with which parameters."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.called: dict[str, set[str]] = defaultdict(set)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.called[name] |= set(inspect.signature(method).bind(*args, **kwargs).arguments)
            return method(*args, **kwargs)

        return call


@pytest.fixture(scope="module")
def client(mesh, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path_factory.mktemp("kfp") / "context.json"))
        yield _Recorded(Client(host=mesh.ingress))


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("packages")
    plain = folder / "pipeline.yaml"
    compiler.Compiler().compile(says, str(plain))
    with zipfile.ZipFile(folder / "pipeline.zip", "w") as archive:
        archive.write(plain, "pipeline.yaml")
    for name in ("pipeline.tar.gz", "pipeline.tgz"):
        with tarfile.open(folder / name, "w:gz") as archive:
            archive.add(plain, "says.yaml")
    return {"".join(path.suffixes): str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def package(packages) -> str:
    return packages[".yaml"]


@pytest.fixture(scope="module")
def experiment(client):
    return client.create_experiment(_name("whole"), description="all of it", namespace="default")


def _name(what: str) -> str:
    return f"{what} {uuid.uuid4()}"


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def _finished(client, run_id: str) -> Any:
    return client.wait_for_run_completion(run_id, timeout=60, sleep_duration=0.05)


def _refused(status: int, word: str, call: Any, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(kfp_server_api.ApiException) as caught:
        call(*args, **kwargs)
    assert caught.value.status == status, caught.value.body
    body = json.loads(caught.value.body)
    assert set(body) >= {"code", "message"} and isinstance(body["code"], int)
    assert isinstance(body.get("details", []), list)
    assert word in body["message"], body


def _pages(call: Any, field: str, **kwargs: Any) -> list[Any]:
    found, token = [], ""
    while True:
        page = call(page_token=token, page_size=2, **kwargs)
        found += getattr(page, field) or []
        token = page.next_page_token
        if not token:
            assert page.total_size == len(found)
            return found


def test_health_and_namespace(client):
    assert not client.get_kfp_healthz(sleep_duration=0).multi_user
    assert client.get_user_namespace() == ""
    client.set_user_namespace(namespace="default")
    assert client.get_user_namespace() == "default"
    assert client.list_experiments(filter=_equals("namespace", "default")) is not None
    client.set_user_namespace(namespace="")


def test_experiments(client, experiment):
    assert (experiment.namespace, experiment.description) == ("default", "all of it")
    assert client.create_experiment(name=experiment.display_name).experiment_id == experiment.experiment_id
    by_name = client.get_experiment(experiment_name=experiment.display_name, namespace="default")
    assert by_name == client.get_experiment(experiment_id=experiment.experiment_id)
    names = sorted(_name("listed") for _ in range(3))
    ids = [client.create_experiment(name).experiment_id for name in names]
    some = json.dumps({"predicates": [{"operation": "IN", "key": "name", "stringValues": {"values": names}}]})
    found = _pages(
        client.list_experiments, "experiments", sort_by="display_name desc", namespace="default", filter=some
    )
    assert [one.display_name for one in found] == names[::-1]
    client.archive_experiment(experiment_id=ids[0])
    assert client.get_experiment(experiment_id=ids[0]).storage_state == "ARCHIVED"
    client.unarchive_experiment(experiment_id=ids[0])
    assert client.get_experiment(experiment_id=ids[0]).storage_state == "AVAILABLE"
    for one in ids:
        client.delete_experiment(experiment_id=one)
    _refused(404, ids[0], client.get_experiment, experiment_id=ids[0])
    with pytest.raises(ValueError, match="No experiment is found"):
        client.get_experiment(experiment_name=names[0])


def test_packages_of_every_form(client, packages):
    assert set(packages) == {".yaml", ".zip", ".tar.gz", ".tgz"}
    for path in packages.values():
        name = _name("package")
        made = client.upload_pipeline(path, pipeline_name=name, description="d", namespace="default")
        assert (made.display_name, made.description, made.namespace) == (name, "d", "default")
        (version,) = client.list_pipeline_versions(made.pipeline_id).pipeline_versions
        assert version.pipeline_spec["pipelineInfo"]["name"] == "says"
        client.delete_pipeline_version(made.pipeline_id, version.pipeline_version_id)
        client.delete_pipeline(pipeline_id=made.pipeline_id)
    assert client.upload_pipeline(pipeline_package_path=packages[".yaml"]).display_name == "says"  # the package's own
    _refused(409, "says", client.upload_pipeline, packages[".yaml"])
    pipeline_id = client.get_pipeline_id("says")
    (version,) = client.list_pipeline_versions(pipeline_id).pipeline_versions
    client.delete_pipeline_version(pipeline_id, version.pipeline_version_id)
    client.delete_pipeline(client.get_pipeline_id(name="says"))
    assert client.get_pipeline_id("says") is None


def test_pipelines_and_versions(client, package):
    names = sorted(_name("pipeline") for _ in range(3))
    made = [
        client.upload_pipeline_from_pipeline_func(
            pipeline_func=says, pipeline_name=name, description="by function", namespace="default"
        )
        for name in names
    ]
    some = json.dumps({"predicates": [{"operation": "IN", "key": "name", "stringValues": {"values": names}}]})
    found = _pages(client.list_pipelines, "pipelines", sort_by="name desc", filter=some, namespace="default")
    assert [one.pipeline_id for one in found] == [one.pipeline_id for one in made[::-1]]
    pipeline_id = client.get_pipeline_id(name=names[0])
    assert client.get_pipeline(pipeline_id=pipeline_id).description == "by function"
    uploads = [
        client.upload_pipeline_version(package, "v1", pipeline_id=pipeline_id, description="first"),
        client.upload_pipeline_version(
            pipeline_package_path=package, pipeline_version_name="v2", pipeline_name=names[0]
        ),
        client.upload_pipeline_version_from_pipeline_func(
            pipeline_func=says, pipeline_version_name="v3", pipeline_id=pipeline_id, description="third"
        ),
        client.upload_pipeline_version_from_pipeline_func(says, "v4", pipeline_name=names[0]),
    ]
    _refused(409, "v4", client.upload_pipeline_version, package, "v4", pipeline_id=pipeline_id)
    assert {one.pipeline_id for one in uploads} == {pipeline_id}
    assert [one.description for one in uploads] == ["first", None, "third", None]
    not_own = json.dumps({"predicates": [{"operation": "NOT_EQUALS", "key": "name", "stringValue": names[0]}]})
    listed = _pages(
        client.list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=pipeline_id,
        sort_by="created_at desc",
        filter=not_own,
    )
    assert [one.display_name for one in listed] == ["v4", "v3", "v2", "v1"]
    got = client.get_pipeline_version(pipeline_id=pipeline_id, pipeline_version_id=listed[0].pipeline_version_id)
    assert got == listed[0]
    _refused(404, "none", client.get_pipeline_version, pipeline_id, "none")
    _refused(400, "versions", client.delete_pipeline, pipeline_id)
    for one in made:
        for version in client.list_pipeline_versions(one.pipeline_id).pipeline_versions:
            client.delete_pipeline_version(pipeline_id=one.pipeline_id, pipeline_version_id=version.pipeline_version_id)
        client.delete_pipeline(one.pipeline_id)
        _refused(404, one.pipeline_id, client.get_pipeline, one.pipeline_id)


def test_runs_of_packages_and_of_versions(client, experiment, package, mesh):
    root = f"{mesh.data_dir}/artifacts/elsewhere"
    text, key = str(uuid.uuid4()), str(uuid.uuid4())
    ids = []
    for number in range(2):  # the second differs in what the cache key stands for
        run = client.run_pipeline(
            experiment_id=experiment.experiment_id,
            job_name=f"by package {number}",
            pipeline_package_path=package,
            params={"text": text + str(number)},
            pipeline_root=root,
            enable_caching=True,
            cache_key=key,
            service_account="robot",
        )
        run = _finished(client, run.run_id)
        assert (run.state, run.service_account, run.experiment_id) == ("SUCCEEDED", "robot", experiment.experiment_id)
        assert run.runtime_config.pipeline_root == f"file://{root}"
        ids.append(run.run_id)
    assert [client.get_run(one).run_details.task_details[0].state for one in ids] == ["SUCCEEDED", "SKIPPED"]
    pipeline = client.upload_pipeline(package, pipeline_name=_name("of versions"))
    version = client.upload_pipeline_version(package, "second", pipeline_id=pipeline.pipeline_id)
    run = client.run_pipeline(
        experiment.experiment_id,
        "by version",
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
    )
    run = _finished(client, run.run_id)
    assert run.state == "SUCCEEDED" and run.pipeline_spec is None
    reference = run.pipeline_version_reference
    assert (reference.pipeline_id, reference.pipeline_version_id) == (
        pipeline.pipeline_id,
        version.pipeline_version_id,
    )


@pytest.mark.parametrize("by", ["func", "package"])
def test_runs_of_functions_and_of_files(client, experiment, package, mesh, by):
    what = says if by == "func" else package
    create = getattr(client, f"create_run_from_pipeline_{by}")
    first = "pipeline_func" if by == "func" else "pipeline_file"
    root = f"{mesh.data_dir}/artifacts/elsewhere"
    made = create(
        **{first: what},
        arguments={"text": "caf\u00e9"},
        run_name=_name(by),
        experiment_name=experiment.display_name,
        namespace="default",
        pipeline_root=root,
        enable_caching=False,
        cache_key="",
        service_account="robot",
    )
    run = _finished(client, made.run_id)
    assert made.wait_for_run_completion(60) == run
    assert (run.state, run.service_account, run.experiment_id) == ("SUCCEEDED", "robot", experiment.experiment_id)
    assert run.runtime_config.parameters == {"text": "caf\u00e9"}
    failed = _finished(client, create(what, {"text": "fail"}, experiment_id=experiment.experiment_id).run_id)
    assert failed.state == "FAILED" and failed.experiment_id == experiment.experiment_id
    assert "'say' failed" in failed.error.message and "ValueError: told to fail" in failed.error.message
    _refused(400, "nope", create, what, {"nope": 1})


def test_runs_are_listed_archived_terminated_and_deleted(client, package):
    experiment = client.create_experiment(_name("runs"))
    made = [
        client.create_run_from_pipeline_package(package, run_name=f"r{number}", experiment_id=experiment.experiment_id)
        for number in range(3)
    ]
    for one in made:
        _finished(client, one.run_id)
    listed = _pages(
        client.list_runs,
        "runs",
        sort_by="created_at desc",
        experiment_id=experiment.experiment_id,
        filter=_equals("state", "SUCCEEDED"),
    )
    assert [one.run_id for one in listed] == [one.run_id for one in made[::-1]]
    by_namespace = client.list_runs(namespace="default", filter=_equals("experiment_id", experiment.experiment_id))
    assert by_namespace.total_size == 3
    run_id = made[0].run_id
    client.archive_run(run_id=run_id)
    assert client.get_run(run_id=run_id).storage_state == "ARCHIVED"
    client.unarchive_run(run_id=run_id)
    assert client.get_run(run_id=run_id).storage_state == "AVAILABLE"
    _refused(400, "ended", client.terminate_run, run_id)
    client.delete_run(run_id=run_id)
    _refused(404, run_id, client.get_run, run_id)
    _refused(404, run_id, client.delete_run, run_id)
    active = client.create_run_from_pipeline_func(waits, experiment_id=experiment.experiment_id, enable_caching=False)
    client.terminate_run(run_id=active.run_id)
    deadline = time.monotonic() + 30
    while client.get_run(active.run_id).state != "CANCELED":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(TimeoutError):  # this client's list of final states lacks CANCELED
        client.wait_for_run_completion(run_id=active.run_id, timeout=0, sleep_duration=0)


def test_recurring_runs(client, experiment, package):
    client_experiment = client.create_experiment(_name("recurring"))
    common = {
        "experiment_id": client_experiment.experiment_id,
        "description": "d",
        "start_time": "2030-01-01T00:00:00Z",
        "end_time": "2031-01-01T00:00:00Z",
        "max_concurrency": 3,
        "no_catchup": True,
        "params": {"text": "x"},
        "enabled": False,
        "pipeline_root": None,
        "enable_caching": False,
        "cache_key": None,
        "service_account": "robot",
    }
    by_cron = client.create_recurring_run(
        job_name="r1", cron_expression="0 0 9 ? * 2-6", pipeline_package_path=package, **common
    )
    assert (by_cron.status, by_cron.no_catchup, by_cron.service_account) == ("DISABLED", True, "robot")
    assert by_cron.trigger.cron_schedule.cron == "0 0 9 ? * 2-6"
    assert by_cron.trigger.cron_schedule.start_time.year == 2030
    pipeline = client.upload_pipeline(package, pipeline_name=_name("recurring"))
    (version,) = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    by_interval = client.create_recurring_run(
        job_name="r2",
        interval_second=3600,
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
        **common,
    )
    assert by_interval.trigger.periodic_schedule.interval_second == "3600"
    third = client.create_recurring_run(
        client_experiment.experiment_id, "r3", interval_second=3600, pipeline_package_path=package, enabled=False
    )
    listed = _pages(
        client.list_recurring_runs,
        "recurring_runs",
        sort_by="display_name desc",
        experiment_id=client_experiment.experiment_id,
        filter=json.dumps({"predicates": [{"operation": "IS_SUBSTRING", "key": "name", "stringValue": "R"}]}),
    )
    assert [one.display_name for one in listed] == ["r3", "r2", "r1"]
    own = client.list_recurring_runs(namespace="default", filter=_equals("id", third.recurring_run_id))
    assert [one.display_name for one in own.recurring_runs] == ["r3"]
    assert client.get_recurring_run(recurring_run_id="", job_id=third.recurring_run_id) == own.recurring_runs[0]
    client.enable_recurring_run(recurring_run_id=third.recurring_run_id)
    assert client.get_recurring_run(recurring_run_id=third.recurring_run_id).status == "ENABLED"
    client.disable_recurring_run(recurring_run_id=third.recurring_run_id)
    client.enable_job(job_id=third.recurring_run_id)
    client.disable_job(job_id=third.recurring_run_id)
    assert client.get_recurring_run(third.recurring_run_id).mode == "DISABLE"
    client.delete_job(job_id=third.recurring_run_id)
    for one in (by_cron, by_interval):
        client.delete_recurring_run(recurring_run_id=one.recurring_run_id)
        _refused(404, one.recurring_run_id, client.get_recurring_run, one.recurring_run_id)
    client.archive_experiment(client_experiment.experiment_id)
    _refused(
        400,
        "archived",
        client.create_recurring_run,
        client_experiment.experiment_id,
        "late",
        interval_second=60,
        pipeline_package_path=package,
    )
    _refused(400, "archived", client.run_pipeline, client_experiment.experiment_id, "late", package)


def _public_methods() -> dict[str, set[str]]:
    found = {}
    for name, method in inspect.getmembers(Client, callable):
        if not name.startswith("_"):
            found[name] = set(inspect.signature(method).parameters) - {"self"}
    return found


def test_no_method_and_no_parameter_is_left_out(client, request):
    tests = {name for name in globals() if name.startswith("test_")}
    chosen = {item.originalname for item in request.session.items if item.path == request.path}
    if chosen != tests:
        pytest.skip("only some of the tests of this file were chosen")
    methods = _public_methods()
    assert set(NOT_SERVED) <= set(methods)
    left_out = {
        name: sorted(parameters - client.called[name]) or "not called"
        for name, parameters in methods.items()
        if name not in NOT_SERVED and (name not in client.called or parameters - client.called[name])
    }
    assert left_out == {}
    documentation = (Path(__file__).parents[2] / "docs/pipeline.md").read_text()
    assert all(f"`{name}`" in documentation for name in NOT_SERVED)
