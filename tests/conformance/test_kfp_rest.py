"""Every operation of `kfp_server_api`, the client that KFP generates from its API, with every query parameter."""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
import kfp_server_api.api
import pytest
import requests
from google.api import annotations_pb2
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    auth_pb2,
    experiment_pb2,
    filter_pb2,
    healthz_pb2,
    pipeline_pb2,
    recurring_run_pb2,
    report_pb2,
    run_pb2,
    visualization_pb2,
)

pytestmark = pytest.mark.conformance

NOT_SERVED = {
    "report_service_report_workflow": "ReportService",
    "report_service_report_scheduled_workflow": "ReportService",
    "visualization_service_create_visualization_v1": "VisualizationService",
}
"""Operations that are UNIMPLEMENTED, and the word under which docs/pipeline.md says why."""

_FILES = (
    auth_pb2,
    experiment_pb2,
    filter_pb2,
    healthz_pb2,
    pipeline_pb2,
    recurring_run_pb2,
    report_pb2,
    run_pb2,
    visualization_pb2,
)
_VALUES = {
    "page_size": "5",
    "page_token": "",
    "sort_by": "created_at desc",
    "filter": "{}",
    "cascade": "true",
    "resources": "VIEWERS",
    "verb": "GET",
    "propagation_policy": "BACKGROUND",
    "tags": '{"a":"b"}',
    "namespace": "default",
}


@dataclass(frozen=True)
class Operation:
    name: str
    verb: str
    path: str
    query: tuple[str, ...]


def _operations() -> list[Operation]:
    found = []
    for _, api in inspect.getmembers(kfp_server_api.api, inspect.isclass):
        for name, method in inspect.getmembers(api, inspect.isfunction):
            if name.endswith("_with_http_info"):
                source = inspect.getsource(method)
                call = re.search(r"call_api\(\s*'([^']+)',\s*'([A-Z]+)'", source)
                assert call, name
                query = re.findall(r"query_params\.append\(\('(\w+)'", source)
                found.append(Operation(name.removesuffix("_with_http_info"), call[2], call[1], tuple(query)))
    return found


OPERATIONS = _operations()


def test_the_paths_are_those_of_the_protos():
    assert len(OPERATIONS) >= 39
    rules = {}
    for file in _FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                rule = method.GetOptions().Extensions[annotations_pb2.http]
                verb = rule.WhichOneof("pattern")
                rules[verb.upper(), getattr(rule, verb)] = method.full_name
    uploads = {("POST", f"/apis/v2beta1/pipelines/{name}") for name in ("upload", "upload_version")}
    asked = {(one.verb, one.path) for one in OPERATIONS}
    assert asked - set(rules) == uploads
    # This one is no longer among KFP's documented operations, and is served all the same.
    assert {rules[one].rpartition(".")[2] for one in set(rules) - asked} == {"ReadArtifact"}


def _ask(mesh: Any, operation: Operation, query: dict[str, str]) -> requests.Response:
    path = re.sub(r"\{([^}]+)\}", lambda found: _VALUES.get(found[1], "none"), operation.path)
    body: dict[str, Any] = {}
    if operation.verb in {"POST", "PATCH"}:
        body = {"json": "x" if operation.name.startswith("report") else {}}
    return requests.request(operation.verb, mesh.ingress + path, params=query, timeout=10, **body)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_an_operation_reaches_the_service_with_all_its_parameters(mesh, operation):
    answer = _ask(mesh, operation, {name: _VALUES.get(name, "none") for name in operation.query})
    body = answer.json()
    if operation.name in NOT_SERVED:
        assert (answer.status_code, body["code"]) == (501, 12)
        assert len(body["message"]) > 60  # says why
        documentation = (Path(__file__).parents[2] / "docs/pipeline.md").read_text()
        assert f"`{NOT_SERVED[operation.name]}`" in documentation
    elif answer.status_code != 200:
        assert (answer.status_code, body["code"]) in {(400, 3), (404, 5)}, body
        # Envoy's own answers begin so: the path, the verb or a parameter would not be known.
        assert not body["message"].startswith(("bad request", "no such path")), body
    if any("{" in part for part in operation.path.split("/")) and operation.name not in NOT_SERVED:
        assert answer.status_code in {400, 404}, body  # there is no such resource


def test_errors_are_those_that_the_client_documents(mesh):
    documented = set(kfp_server_api.GoogleRpcStatus.openapi_types)
    assert documented == {"code", "message", "details"}
    base = f"{mesh.ingress}/apis/v2beta1"
    answers = [
        requests.get(f"{base}/runs/none", timeout=5),  # by the transcoder
        requests.get(f"{base}/runs", params={"page_size": "-1"}, timeout=5),
        requests.get(f"{base}/runs", params={"nonsense": "1"}, timeout=5),  # by Envoy
        requests.post(f"{base}/runs", data="{", timeout=5),
        requests.get(f"{base}/nonsense", timeout=5),
        requests.post(f"{base}/pipelines/upload", timeout=5),  # by an HTTP handler
        requests.get(f"{base}/runs/none/tasks/none/log", timeout=5),
    ]
    assert [answer.status_code for answer in answers] == [404, 400, 400, 400, 404, 400, 404]
    for answer in answers:
        body = answer.json()
        assert documented - {"details"} <= set(body) <= documented | {"error"}
        assert body["code"] == {400: 3, 404: 5}[answer.status_code]
        assert body["message"] and all("@type" in detail for detail in body.get("details", []))
        assert body.get("error", body["message"]) == body["message"]
    field = answers[1].json()["details"][0]["field_violations"][0]["field"]
    assert field == "page_size"
