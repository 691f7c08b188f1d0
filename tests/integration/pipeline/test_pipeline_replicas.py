"""Two services on one PostgreSQL: whichever is asked, the answer is the same."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests
import yaml
from kfp import dsl
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import experiment_pb2, pipeline_pb2, run_pb2


@dsl.component
def hold(path: str):
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.02)


@dsl.pipeline(name="holds-on")
def holds_on(path: str):
    hold(path=path).set_caching_options(False)


@pytest.fixture
def package_url(compile_pipeline) -> Iterator[str]:
    """Where a package can be fetched from."""
    content = yaml.safe_dump(compile_pipeline(holds_on)).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/holds?signature=secret"
        server.shutdown()
        thread.join()


def test_what_one_replica_was_told_the_other_knows(
    make_service, connect, postgresql_server, package_url, by_name, tmp_path
):
    settings = {
        "DATABASE_URL": postgresql_server.make_database(),
        "ARTIFACT_ROOT": f"file://{tmp_path / 'artifacts'}",
        "SCAN_SECONDS": "0.1",
        "TERMINATE_GRACE_SECONDS": "0.2",
        "PACKAGE_HOSTS": package_url.split("/")[2],
    }
    one, two = (connect(make_service(tmp_path / name, **settings)) for name in ("one", "two"))
    asked = pipeline_pb2.CreatePipelineAndVersionRequest()
    asked.pipeline.display_name = "fetched"
    asked.pipeline_version.package_url.pipeline_url = package_url
    pipeline = one.pipelines.CreatePipelineAndVersion(asked)
    found = two.pipelines.GetPipelineByName(pipeline_pb2.GetPipelineByNameRequest(name="fetched"))
    assert found == pipeline
    versions = pipeline_pb2.ListPipelineVersionsRequest(pipeline_id=pipeline.pipeline_id)
    (version,) = two.pipelines.ListPipelineVersions(versions).pipeline_versions
    assert version.package_url.pipeline_url == package_url.partition("?")[0]
    again = pipeline_pb2.CreatePipelineVersionRequest(pipeline_id=pipeline.pipeline_id)
    again.pipeline_version.display_name = "second"
    again.pipeline_version.package_url.pipeline_url = package_url
    second = two.pipelines.CreatePipelineVersion(again)
    again.pipeline_version.package_url.pipeline_url = "http://elsewhere.example/p.yaml"
    with pytest.raises(grpc.RpcError, match="PACKAGE_HOSTS"):
        two.pipelines.CreatePipelineVersion(again)

    ids = []
    for number, client in enumerate((one, two, one)):
        run = run_pb2.Run(display_name=f"run {number}")
        run.pipeline_version_reference.pipeline_id = pipeline.pipeline_id
        run.runtime_config.parameters["path"].string_value = str(tmp_path / "go")
        created = client.runs.CreateRun(run_pb2.CreateRunRequest(run=run))
        assert created.pipeline_version_reference.pipeline_version_id == second.pipeline_version_id
        ids.append(created.run_id)
    listed, token = [], ""
    for client in (one, two):  # a token of one is good at the other
        page = client.runs.ListRuns(run_pb2.ListRunsRequest(page_size=2, sort_by="created_at", page_token=token))
        listed += [run.run_id for run in page.runs]
        token = page.next_page_token
    assert listed == ids and not token
    for client, other, run_id in ((one, two, ids[0]), (two, one, ids[1])):
        client.wait_until(run_id, lambda run: run.state == run_pb2.RUNNING and bool(by_name(run)))
        other.runs.TerminateRun(run_pb2.TerminateRunRequest(run_id=run_id))
        assert client.wait(run_id).state == run_pb2.CANCELED
    two.runs.DeleteRun(run_pb2.DeleteRunRequest(run_id=ids[2]))  # it is active, perhaps at the other
    with pytest.raises(grpc.RpcError, match="not found"):
        one.get(ids[2])
    one.runs.ArchiveRun(run_pb2.ArchiveRunRequest(run_id=ids[1]))
    with pytest.raises(grpc.RpcError, match="archived"):
        two.runs.RetryRun(run_pb2.RetryRunRequest(run_id=ids[1]))
    (tmp_path / "go").touch()
    two.runs.RetryRun(run_pb2.RetryRunRequest(run_id=ids[0]))
    assert one.wait(ids[0]).state == run_pb2.SUCCEEDED

    experiment = experiment_pb2.Experiment(display_name="shared")
    request = experiment_pb2.CreateExperimentRequest(experiment=experiment)
    one.experiments.CreateExperiment(request)
    with pytest.raises(grpc.RpcError) as caught:
        two.experiments.CreateExperiment(request)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS

    # PostgreSQL has no text with NUL in it.
    nul = json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": "a\0b"}]})
    for call, bad in (
        (one.runs.GetRun, run_pb2.GetRunRequest(run_id="a\0b")),
        (one.runs.ListRuns, run_pb2.ListRunsRequest(filter=nul)),
        (one.runs.ListRuns, run_pb2.ListRunsRequest(namespace="a\0b")),
        (one.pipelines.GetPipelineByName, pipeline_pb2.GetPipelineByNameRequest(name="a\0b")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(bad)
        assert caught.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}
    answer = requests.get(f"{one.service.http}/apis/v2beta1/runs/a%00b/tasks/x/log", timeout=5)
    assert answer.status_code == 400, answer.text
