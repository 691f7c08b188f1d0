"""The API: experiments, pipelines, versions, runs; lists; and what is refused."""

import gzip
import io
import json
import tarfile
import urllib.parse
import zipfile

import grpc
import pytest
import requests
import yaml
from google.protobuf import empty_pb2, json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from kfp import dsl
from mlmesh_kit.paging import encode_page_token
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    auth_pb2,
    auth_pb2_grpc,
    experiment_pb2,
    pipeline_pb2,
    run_pb2,
    visualization_pb2,
    visualization_pb2_grpc,
)


@dsl.component
def quick(n: int) -> int:
    return n


@dsl.pipeline(name="quick-pipeline")
def quick_pipeline(n: int = 1):
    quick(n=n)


@pytest.fixture(scope="module")
def spec(compile_pipeline):
    return compile_pipeline(quick_pipeline)


def _refused(code: grpc.StatusCode, call, *arguments) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    assert caught.value.code() == code, caught.value.details()
    assert "Traceback" not in caught.value.details()
    return caught.value.details()


def _filter(*predicates: dict) -> str:
    return json.dumps({"predicates": list(predicates)})


def test_healthz(client):
    assert client.healthz.GetHealthz(empty_pb2.Empty()).multi_user is False


def _experiment(client, name, **fields):
    asked = experiment_pb2.Experiment(display_name=name, **fields)
    return client.experiments.CreateExperiment(experiment_pb2.CreateExperimentRequest(experiment=asked))


def test_experiments(client):
    made = _experiment(client, "first", description="why")
    assert made.namespace == "default"
    got = client.experiments.GetExperiment(experiment_pb2.GetExperimentRequest(experiment_id=made.experiment_id))
    assert got == made
    assert "first" in _refused(grpc.StatusCode.ALREADY_EXISTS, _experiment, client, "first")
    assert "display_name" in _refused(grpc.StatusCode.INVALID_ARGUMENT, _experiment, client, " ")
    assert "display_name" in _refused(grpc.StatusCode.INVALID_ARGUMENT, _experiment, client, "x" * 5000)
    archive = experiment_pb2.ArchiveExperimentRequest(experiment_id=made.experiment_id)
    client.experiments.ArchiveExperiment(archive)
    found = client.experiments.ListExperiments(
        experiment_pb2.ListExperimentsRequest(
            filter=urllib.parse.quote(
                _filter({"operation": "EQUALS", "key": "storage_state", "stringValue": "ARCHIVED"})
            )
        )
    )
    assert [item.display_name for item in found.experiments] == ["first"]
    client.experiments.UnarchiveExperiment(experiment_pb2.UnarchiveExperimentRequest(experiment_id=made.experiment_id))
    delete = experiment_pb2.DeleteExperimentRequest(experiment_id=made.experiment_id)
    client.experiments.DeleteExperiment(delete)
    _refused(grpc.StatusCode.NOT_FOUND, client.experiments.DeleteExperiment, delete)


def test_lists_are_filtered_sorted_and_paged(client):
    for number in range(7):
        _experiment(client, f"page-{number}")
    substring = _filter({"operation": 9, "key": "display_name", "stringValue": "page-"})

    def pages(**fields):
        token, names = "", []
        while True:
            page = client.experiments.ListExperiments(
                experiment_pb2.ListExperimentsRequest(page_token=token, page_size=3, **fields)
            )
            assert page.total_size == 7
            names += [item.display_name for item in page.experiments]
            token = page.next_page_token
            if not token:
                return names

    expected = [f"page-{number}" for number in range(7)]
    assert pages(filter=substring) == expected
    assert pages(filter=substring, sort_by="created_at desc") == expected[::-1]
    assert pages(filter=substring, sort_by="display_name desc") == expected[::-1]
    chosen = _filter({"operation": "IN", "key": "name", "stringValues": {"values": ["page-1", "page-5", "none"]}})
    found = client.experiments.ListExperiments(experiment_pb2.ListExperimentsRequest(filter=chosen))
    assert [item.display_name for item in found.experiments] == ["page-1", "page-5"]
    created = found.experiments[0].created_at.ToJsonString()
    later = _filter(
        {"operation": "GREATER_THAN", "key": "created_at", "timestampValue": created},
        {"operation": "IS_SUBSTRING", "key": "name", "stringValue": "page-"},
    )
    found = client.experiments.ListExperiments(experiment_pb2.ListExperimentsRequest(filter=later, page_size=200))
    assert [item.display_name for item in found.experiments] == expected[2:]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"filter": "{"}, "filter"),
        ({"filter": '{"predicates": [{"key": "name"}]}'}, "filter"),
        ({"filter": '{"predicates": [{"key": "name", "operation": 1}]}'}, "filter"),
        ({"filter": '{"predicates": [{"key": "no", "operation": 1, "stringValue": "x"}]}'}, "'no'"),
        ({"filter": '{"predicates": [{"key": "created_at", "operation": 1, "stringValue": "x"}]}'}, "created_at"),
        ({"filter": '{"nonsense": 1}'}, "filter"),
        ({"filter": "x" * 200_000}, "filter"),
        ({"sort_by": "name; DROP TABLE runs"}, "sort_by"),
        ({"sort_by": "secret"}, "sort_by"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "bad"}, "page_token"),
        ({"page_token": "A" * 100_000}, "page_token"),
    ],
)
def test_bad_list_requests_name_the_field(client, fields, word):
    request = run_pb2.ListRunsRequest(**fields)
    assert word in _refused(grpc.StatusCode.INVALID_ARGUMENT, client.runs.ListRuns, request)


def test_a_token_is_good_for_its_own_request_only(client):
    for name in ("token-a", "token-b"):
        _experiment(client, name)
    page = client.experiments.ListExperiments(experiment_pb2.ListExperimentsRequest(page_size=1))
    other = experiment_pb2.ListExperimentsRequest(page_size=1, page_token=page.next_page_token, sort_by="name")
    assert "page_token" in _refused(grpc.StatusCode.INVALID_ARGUMENT, client.experiments.ListExperiments, other)


def _upload(service, data, file_name="p.yaml", path="upload", **query):
    return requests.post(
        f"{service.http}/apis/v2beta1/pipelines/{path}",
        params=query,
        files={"uploadfile": (file_name, data)},
        timeout=10,
    )


def _zip(**files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/") + ".yaml", content)
    return buffer.getvalue()


def _tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("pipeline.yaml")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_uploaded_pipelines_and_versions(client, spec, shared_service):
    text = yaml.safe_dump(spec)
    made = _upload(shared_service, text, display_name="shown", description="d", tags='{"team": "red"}')
    assert made.status_code == 200, made.text
    pipeline = made.json()
    assert (pipeline["name"], pipeline["display_name"], pipeline["tags"]) == ("shown", "shown", {"team": "red"})
    pipeline_id = pipeline["pipeline_id"]
    versions = client.pipelines.ListPipelineVersions(pipeline_pb2.ListPipelineVersionsRequest(pipeline_id=pipeline_id))
    assert [version.display_name for version in versions.pipeline_versions] == ["shown"]
    stored = json_format.MessageToDict(versions.pipeline_versions[0].pipeline_spec)
    assert stored["pipelineInfo"]["name"] == "quick-pipeline"
    for name, data in (("v2.zip", _zip(pipeline=text)), ("v3.tar.gz", _tar(text.encode()))):
        added = _upload(shared_service, data, name, path="upload_version", pipelineid=pipeline_id, name=name)
        assert added.status_code == 200, added.text
        assert added.json()["pipeline_id"] == pipeline_id
    tagged = _filter({"operation": "EQUALS", "key": "tags.team", "stringValue": "red"})
    found = client.pipelines.ListPipelines(pipeline_pb2.ListPipelinesRequest(filter=tagged))
    assert [item.pipeline_id for item in found.pipelines] == [pipeline_id]
    by_name = client.pipelines.GetPipelineByName(pipeline_pb2.GetPipelineByNameRequest(name="shown"))
    assert by_name.pipeline_id == pipeline_id
    run = run_pb2.Run(display_name="of a version")
    run.pipeline_version_reference.pipeline_id = pipeline_id
    created = client.runs.CreateRun(run_pb2.CreateRunRequest(run=run))
    assert created.pipeline_version_reference.pipeline_version_id == added.json()["pipeline_version_id"]
    assert client.wait(created.run_id).state == run_pb2.SUCCEEDED
    again = _upload(shared_service, text, display_name="shown")
    assert again.status_code == 409
    delete = pipeline_pb2.DeletePipelineRequest(pipeline_id=pipeline_id)
    _refused(grpc.StatusCode.FAILED_PRECONDITION, client.pipelines.DeletePipeline, delete)
    delete_version = pipeline_pb2.DeletePipelineVersionRequest(
        pipeline_id=pipeline_id, pipeline_version_id=added.json()["pipeline_version_id"]
    )
    client.pipelines.DeletePipelineVersion(delete_version)
    _refused(grpc.StatusCode.NOT_FOUND, client.pipelines.DeletePipelineVersion, delete_version)
    client.pipelines.DeletePipeline(pipeline_pb2.DeletePipelineRequest(pipeline_id=pipeline_id, cascade=True))
    _refused(
        grpc.StatusCode.NOT_FOUND,
        client.pipelines.GetPipeline,
        pipeline_pb2.GetPipelineRequest(pipeline_id=pipeline_id),
    )


_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("p.yaml", "", 400),
        ("p.yaml", "a: [", 400),
        ("p.yaml", "- 1\n- 2", 400),
        ("p.yaml", "pipelineInfo: {name: x}", 400),
        ("p.yaml", b"\xff\xfe\x00", 400),
        ("p.yaml", _BOMB, 400),
        ("p.yaml", "[" * 50_000, 400),
        ("p.yaml", "!!python/object/apply:os.system ['true']", 400),
        ("p.yaml", "a: !!python/name:os.system", 400),
        ("p.yaml", "pipelineInfo: {name: x}\npipelineInfo: {name: y}", 400),
        ("p.yaml", "a: 1\n---\nplatforms: {}\n---\nb: 1", 400),
        ("p.yaml", "pipelineInfo: {name: .nan}", 400),
        ("p.yaml", "pipelineInfo: {name: 2026-01-01}", 400),
        ("p.yaml", "pipelineInfo: {name: " + "9" * 1000 + "}", 400),
        ("p.yaml", "? [a]\n: 1", 400),
        ("p.yaml", "apiVersion: argoproj.io/v1alpha1\nkind: Workflow", 400),
        ("p.json", '{"pipelineInfo": {"name": NaN}}', 400),
        ("p.exe", "x", 400),
        ("p.zip", b"PK nonsense", 400),
        ("p.zip", _zip(a="x", b="y"), 400),
        ("p.zip", _zip(pipeline=" " * (40 << 20)), 400),
        ("p.tar.gz", b"nonsense", 400),
        ("p.tar.gz", gzip.compress(b"\0" * 1000), 400),
        ("p.yaml", "x" * (40 << 20), 400),
        ("p.yaml", "x" * (70 << 20), 413),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_bad_uploads_are_refused_and_change_nothing(client, shared_service, name, data, status):
    before = client.pipelines.ListPipelines(pipeline_pb2.ListPipelinesRequest()).total_size
    answer = _upload(shared_service, data, name, display_name="bad")
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["message"]
    assert client.pipelines.ListPipelines(pipeline_pb2.ListPipelinesRequest()).total_size == before


def test_uploads_without_a_file_or_a_pipeline(shared_service, spec):
    base = f"{shared_service.http}/apis/v2beta1/pipelines"
    assert requests.post(f"{base}/upload", timeout=5).status_code == 400
    assert requests.post(f"{base}/upload", files={"other": ("x", b"")}, timeout=5).status_code == 400
    text = yaml.safe_dump(spec)
    assert _upload(shared_service, text, path="upload_version").status_code == 400
    assert _upload(shared_service, text, path="upload_version", pipelineid="none").status_code == 404
    assert _upload(shared_service, text, tags="[1]").status_code == 400


def test_runs_are_archived_listed_and_deleted(client, spec):
    experiment = _experiment(client, "of runs")
    ids = [
        client.create(spec, {"n": number}, name=f"run {number}", experiment_id=experiment.experiment_id).run_id
        for number in range(3)
    ]
    for run_id in ids:
        assert client.wait(run_id).state == run_pb2.SUCCEEDED
    listed = client.runs.ListRuns(
        run_pb2.ListRunsRequest(experiment_id=experiment.experiment_id, sort_by="created_at desc", page_size=2)
    )
    assert [run.run_id for run in listed.runs] == ids[:0:-1]
    assert (listed.total_size, bool(listed.next_page_token)) == (3, True)
    assert json_format.MessageToDict(listed.runs[0].runtime_config)["parameters"] == {"n": 2}
    client.runs.ArchiveRun(run_pb2.ArchiveRunRequest(run_id=ids[0]))
    state = _filter({"operation": "EQUALS", "key": "storage_state", "stringValue": "AVAILABLE"})
    listed = client.runs.ListRuns(run_pb2.ListRunsRequest(experiment_id=experiment.experiment_id, filter=state))
    assert [run.run_id for run in listed.runs] == ids[1:]
    client.runs.UnarchiveRun(run_pb2.UnarchiveRunRequest(run_id=ids[0]))
    assert client.get(ids[0]).storage_state == run_pb2.Run.AVAILABLE
    terminate = run_pb2.TerminateRunRequest(run_id=ids[0])
    assert "ended" in _refused(grpc.StatusCode.FAILED_PRECONDITION, client.runs.TerminateRun, terminate)
    _refused(grpc.StatusCode.FAILED_PRECONDITION, client.runs.RetryRun, run_pb2.RetryRunRequest(run_id=ids[0]))
    client.runs.DeleteRun(run_pb2.DeleteRunRequest(run_id=ids[0]))
    _refused(grpc.StatusCode.NOT_FOUND, client.get, ids[0])


def test_a_run_without_an_experiment_is_in_the_default_one(client, spec):
    run = client.create(spec)
    found = client.experiments.GetExperiment(experiment_pb2.GetExperimentRequest(experiment_id=run.experiment_id))
    assert found.display_name == "Default"


def test_bad_runs_name_the_field(client, spec):
    before = client.runs.ListRuns(run_pb2.ListRunsRequest()).total_size
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert "pipeline_spec" in _refused(invalid, client.runs.CreateRun, run_pb2.CreateRunRequest())
    assert "pipelineInfo" in _refused(invalid, client.create, {"root": {"dag": {}}})
    assert "'m'" in _refused(invalid, client.create, spec, {"m": 1})
    assert "'n'" in _refused(invalid, client.create, spec, {"n": "one"})
    assert "display_name" in _refused(invalid, lambda: client.create(spec, name=""))
    _refused(grpc.StatusCode.NOT_FOUND, lambda: client.create(spec, experiment_id="none"))
    _refused(grpc.StatusCode.NOT_FOUND, client.get, "none")
    _refused(invalid, client.get, "")
    run = run_pb2.Run(display_name="x")
    run.pipeline_version_reference.pipeline_id = "none"
    _refused(grpc.StatusCode.NOT_FOUND, client.runs.CreateRun, run_pb2.CreateRunRequest(run=run))
    container = json.loads(json.dumps(spec))
    container["deploymentSpec"]["executors"]["exec-quick"]["container"]["command"] = ["rm", "-rf", "x"]
    assert "exec-quick" in _refused(grpc.StatusCode.FAILED_PRECONDITION, client.create, container)
    for root in ("gs://bucket/x", "file:///etc", "/tmp/../etc"):
        run = run_pb2.Run(display_name="x")
        run.runtime_config.pipeline_root = root
        json_format.ParseDict(spec, run.pipeline_spec)
        with pytest.raises(grpc.RpcError, match="pipeline_root"):
            client.runs.CreateRun(run_pb2.CreateRunRequest(run=run))
    assert client.runs.ListRuns(run_pb2.ListRunsRequest()).total_size == before


def test_errors_carry_the_field_as_a_detail(client, spec):
    with pytest.raises(grpc.RpcError) as caught:
        client.create(spec, {"n": "one"})
    status = rpc_status.from_call(caught.value)
    detail = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(detail)
    assert detail.field_violations[0].field == "runtime_config.parameters['n']"


def test_a_message_that_is_too_large_is_refused(client):
    run = run_pb2.Run(display_name="x" * (100 << 20))
    with pytest.raises(grpc.RpcError) as caught:
        client.runs.CreateRun(run_pb2.CreateRunRequest(run=run))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stranger_sees_nothing(client, spec):
    run_id = client.create(spec).run_id
    stranger = (("kubeflow-userid", "stranger@example.com"),)
    for call, request in (
        (client.runs.GetRun, run_pb2.GetRunRequest(run_id=run_id)),
        (client.runs.TerminateRun, run_pb2.TerminateRunRequest(run_id=run_id)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=stranger)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        client.runs.ListRuns(run_pb2.ListRunsRequest(), metadata=stranger)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    url = f"{client.service.http}/apis/v2beta1/runs/{run_id}/tasks/none/log"
    assert requests.get(url, headers={"kubeflow-userid": "stranger@example.com"}, timeout=5).status_code == 404


def test_what_is_not_served_says_so(client):
    stub = visualization_pb2_grpc.VisualizationServiceStub(client.channel)
    request = visualization_pb2.CreateVisualizationRequest()
    _refused(grpc.StatusCode.UNIMPLEMENTED, stub.CreateVisualizationV1, request)


@dsl.component
def count(path: str):
    import os
    import time

    for number in range(1000):
        print(f"line {number}", flush=True)
        if os.path.exists(path):
            break
        time.sleep(0.05)
    print("the last line")


@dsl.pipeline(name="counts")
def counts(path: str):
    count(path=path).set_caching_options(False)


def test_a_log_is_followed_to_its_end(client, compile_pipeline, by_name, tmp_path):
    run = client.create(compile_pipeline(counts), {"path": str(tmp_path / "stop")})
    run = client.wait_until(run.run_id, lambda run: bool(by_name(run) and by_name(run)["count"].pod_name))
    url = f"{client.service.http}/apis/v2beta1/runs/{run.run_id}/tasks/{by_name(run)['count'].task_id}/log"
    with requests.get(url, params={"follow": "true"}, stream=True, timeout=20) as answer:
        lines = []
        for line in answer.iter_lines(decode_unicode=True):
            lines.append(line)
            if line == "line 3":
                (tmp_path / "stop").touch()
    assert "the last line" in lines
    assert client.wait(run.run_id).state == run_pb2.SUCCEEDED


@pytest.mark.parametrize(
    "position", [None, [], ["a", "b", 1], [1, 2, 3], [1, "b", -1], [1, "b", True], [2**70, "b", 1], [1, "b"], {"a": 1}]
)
def test_a_token_that_a_client_made_up(client, position):
    token = encode_page_token([position, "", []], ["runs", "namespace", "default"])
    request = run_pb2.ListRunsRequest(page_token=token)
    assert "page_token" in _refused(grpc.StatusCode.INVALID_ARGUMENT, client.runs.ListRuns, request)


def test_an_update_changes_what_it_names(client, spec):
    request = pipeline_pb2.CreatePipelineAndVersionRequest()
    request.pipeline.MergeFrom(pipeline_pb2.Pipeline(name="updated", display_name="Updated", tags={"team": "red"}))
    asked = request.pipeline_version
    asked.MergeFrom(pipeline_pb2.PipelineVersion(name="first", tags={"a": "b"}, code_source_url="https://example.com"))
    json_format.ParseDict(spec, asked.pipeline_spec)
    made = client.pipelines.CreatePipelineAndVersion(request)
    listed = client.pipelines.ListPipelineVersions(
        pipeline_pb2.ListPipelineVersionsRequest(pipeline_id=made.pipeline_id)
    )
    (version,) = listed.pipeline_versions
    assert (version.name, dict(version.tags), version.code_source_url) == ("first", {"a": "b"}, "https://example.com")
    change = pipeline_pb2.Pipeline(pipeline_id=made.pipeline_id, display_name="New")
    updated = client.pipelines.UpdatePipeline(pipeline_pb2.UpdatePipelineRequest(pipeline=change))
    assert (updated.name, updated.display_name, dict(updated.tags)) == ("updated", "New", {"team": "red"})
    change = pipeline_pb2.Pipeline(pipeline_id=made.pipeline_id, tags={"team": "blue"})
    updated = client.pipelines.UpdatePipeline(pipeline_pb2.UpdatePipelineRequest(pipeline=change))
    assert (updated.display_name, dict(updated.tags)) == ("New", {"team": "blue"})
    ids = {"pipeline_id": made.pipeline_id, "pipeline_version_id": version.pipeline_version_id}
    changed = pipeline_pb2.UpdatePipelineVersionRequest(
        pipeline_version=pipeline_pb2.PipelineVersion(**ids, description="why")
    )
    assert client.pipelines.UpdatePipelineVersion(changed).tags == {"a": "b"}
    bare = pipeline_pb2.UpdatePipelineVersionRequest(pipeline_version=pipeline_pb2.PipelineVersion(**ids))
    cleared = client.pipelines.UpdatePipelineVersion(bare, metadata=(("x-clear-tags", "true"),))
    assert (dict(cleared.tags), cleared.description) == ({}, "why")


def _with_default(spec, kind, value):
    changed = json.loads(json.dumps(spec))
    parameter = {"parameterType": kind, "isOptional": True, "defaultValue": value}
    changed["root"]["inputDefinitions"]["parameters"]["extra"] = parameter
    return changed


def _nested(depth: int) -> dict:
    found: dict = {}
    for _ in range(depth):
        found = {"x": found}
    return found


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        ("NUMBER_DOUBLE", float("nan"), "number"),
        ("NUMBER_DOUBLE", float("-inf"), "number"),
        ("NUMBER_DOUBLE", 10**400, "number"),
        ("STRUCT", _nested(30), "deeper"),
        ("STRUCT", _nested(90), "deeper"),
    ],
    ids=["nan", "inf", "huge", "deep", "deeper"],
)
def test_what_no_message_can_hold_is_not_taken_from_a_package(shared_service, spec, kind, value, word):
    text = yaml.safe_dump(_with_default(spec, kind, value))
    answer = _upload(shared_service, text, display_name=f"unreadable {word}")
    assert answer.status_code == 400 and word in answer.json()["message"], answer.text


def test_what_is_taken_can_be_read(client, shared_service, spec):
    text = yaml.safe_dump(_with_default(spec, "STRUCT", _nested(24)))
    made = _upload(shared_service, text, display_name="deep enough").json()
    listed = client.pipelines.ListPipelineVersions(
        pipeline_pb2.ListPipelineVersionsRequest(pipeline_id=made["pipeline_id"])
    )
    assert listed.pipeline_versions[0].HasField("pipeline_spec")


def test_numbers_that_json_does_not_have(client, spec):
    for field in ("runtime_config", "plugins_input", "pipeline_spec"):
        run = run_pb2.Run(display_name="x")
        json_format.ParseDict(spec, run.pipeline_spec)
        if field == "runtime_config":
            run.runtime_config.parameters["n"].list_value.values.add().number_value = float("nan")
        elif field == "plugins_input":
            run.plugins_input["x"].fields["y"].number_value = float("inf")
        else:
            run.pipeline_spec.fields["x"].number_value = float("inf")
        message = _refused(grpc.StatusCode.INVALID_ARGUMENT, client.runs.CreateRun, run_pb2.CreateRunRequest(run=run))
        assert field in message and "NaN" in message


@pytest.mark.parametrize("field", ["resources", "verb"])
@pytest.mark.parametrize("number", [0, 99])
def test_authorize_names_what_it_does_not_know(client, field, number):
    request = auth_pb2.AuthorizeRequest(resources=1, verb=2)
    authorize = auth_pb2_grpc.AuthServiceStub(client.channel).Authorize
    assert authorize(request) == empty_pb2.Empty()
    setattr(request, field, number)
    assert field in _refused(grpc.StatusCode.INVALID_ARGUMENT, authorize, request)
