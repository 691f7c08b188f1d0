"""InferenceGraphs in the serving router as a real process: managed by gRPC, asked by HTTP."""

import time

import grpc
import httpx
import joblib
import pytest
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.mlmesh.serving.v1 import (
    inference_graph_pb2,
    inference_graph_pb2_grpc,
    inference_service_pb2,
    inference_service_pb2_grpc,
)
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

PARENT = "namespaces/default"
ROW = [5.1, 3.5, 1.4, 0.2]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("graphs")
    folder = data_dir / "artifacts" / "iris"
    folder.mkdir(parents=True)
    data = load_iris()
    joblib.dump(LogisticRegression(max_iter=1000).fit(data.data, data.target), folder / "model.joblib")
    with ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", data_dir) as process:
        model = {"modelFormat": {"name": "sklearn"}, "storageUri": f"file://{folder}"}
        made = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "iris"},
            "spec": {"predictor": {"model": model}},
        }
        request = inference_service_pb2.CreateInferenceServiceRequest(parent=PARENT)
        json_format.ParseDict(made, request.manifest)
        with grpc.insecure_channel(process.grpc) as channel:
            inference_service_pb2_grpc.ServingServiceStub(channel).CreateInferenceService(request)
        yield process


def graphs(process: ServiceProcess):
    return inference_graph_pb2_grpc.InferenceGraphServiceStub(grpc.insecure_channel(process.grpc))


def manifest(name: str, *steps: dict, kind: str = "Sequence") -> dict:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": name},
        "spec": {"nodes": {"root": {"routerType": kind, "steps": list(steps)}}},
    }


def create(process: ServiceProcess, made: dict) -> inference_graph_pb2.InferenceGraph:
    request = inference_graph_pb2.CreateInferenceGraphRequest(parent=PARENT)
    json_format.ParseDict(made, request.manifest)
    return graphs(process).CreateInferenceGraph(request)


def wait_ready(process: ServiceProcess, name: str) -> inference_graph_pb2.InferenceGraph:
    request = inference_graph_pb2.GetInferenceGraphRequest(name=f"{PARENT}/inferencegraphs/{name}")
    deadline = time.monotonic() + 30
    while True:
        found = graphs(process).GetInferenceGraph(request)
        if found.status.conditions[0].status == "True":
            return found
        assert time.monotonic() < deadline, found.status
        time.sleep(0.05)


def refused(call, *args) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call(*args)
    return error.value


def test_a_graph_is_made_asked_and_changed(service) -> None:
    made = create(
        service,
        manifest("both", {"serviceName": "iris"}, {"serviceName": "iris", "name": "again"}, kind="Ensemble"),
    )
    assert made.name == f"{PARENT}/inferencegraphs/both" and made.status.url == "/v1/graphs/both:infer"
    assert wait_ready(service, "both").status.generation == 1

    body = {"instances": [ROW]}
    answer = httpx.post(f"{service.http}{made.status.url}", json=body)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {"0": {"predictions": [0]}, "again": {"predictions": [0]}}
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": ROW}
    answer = httpx.post(f"{service.http}/v1/graphs/default.both:infer", json={"inputs": [tensor]})
    assert answer.json()["0"]["outputs"][0]["data"] == [0]

    request = inference_graph_pb2.UpdateInferenceGraphRequest(name=made.name)
    changed = manifest("both", {"serviceName": "iris", "condition": "[@this].#(kind==iris)"}, kind="Switch")
    json_format.ParseDict(changed, request.manifest)
    assert graphs(service).UpdateInferenceGraph(request).status.generation == 2
    assert graphs(service).UpdateInferenceGraph(request).status.generation == 2  # the same again
    assert httpx.post(f"{service.http}{made.status.url}", json=body).status_code == 404
    answer = httpx.post(f"{service.http}{made.status.url}", json={**body, "kind": "iris"})
    assert answer.json() == {"predictions": [0]}

    graphs(service).DeleteInferenceGraph(inference_graph_pb2.DeleteInferenceGraphRequest(name=made.name))
    assert httpx.post(f"{service.http}{made.status.url}", json=body).status_code == 404


def test_a_graph_tells_what_it_waits_for(service) -> None:
    made = create(service, manifest("waiting", {"serviceName": "iris"}, {"serviceName": "nowhere"}))
    condition = made.status.conditions[0]
    assert (condition.type, condition.status, condition.reason) == ("Ready", "False", "ServiceNotFound")
    assert condition.message == "there is no InferenceService nowhere"
    answer = httpx.post(f"{service.http}/v1/graphs/waiting:infer", json={"instances": [ROW]})
    assert answer.status_code == 404 and answer.json()["code"] == 5


def test_graphs_are_listed_by_pages(service) -> None:
    for name in ("a1", "a2", "a3"):
        create(service, manifest(name, {"serviceName": "iris"}))
    stub = graphs(service)
    names: list[str] = []
    request = inference_graph_pb2.ListInferenceGraphsRequest(parent=PARENT, page_size=2)
    while True:
        page = stub.ListInferenceGraphs(request)
        names += [graph.name.rsplit("/", 1)[1] for graph in page.inference_graphs]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert [name for name in names if name.startswith("a")] == ["a1", "a2", "a3"]
    other = inference_graph_pb2.ListInferenceGraphsRequest(parent="namespaces/other")
    assert not stub.ListInferenceGraphs(other).inference_graphs


def test_bad_requests_are_refused_by_name(service) -> None:
    stub = graphs(service)
    made = manifest("again", {"serviceName": "iris"})
    create(service, made)
    assert refused(create, service, made).code() is grpc.StatusCode.ALREADY_EXISTS
    cyclic = manifest("cyclic", {"nodeName": "root"})
    error = refused(create, service, cyclic)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and "must have no cycle" in error.details()
    error = refused(create, service, manifest("far", {"serviceUrl": "http://169.254.169.254/latest"}))
    assert "169.254.169.254 is no host that this server may call" in error.details()
    request = inference_graph_pb2.UpdateInferenceGraphRequest(name=f"{PARENT}/inferencegraphs/other")
    json_format.ParseDict(made, request.manifest)
    assert "must be 'other', as in name" in refused(stub.UpdateInferenceGraph, request).details()
    json_format.ParseDict({**made, "metadata": {"name": "other", "namespace": "theirs"}}, request.manifest)
    assert "metadata.namespace: must be 'default'" in refused(stub.UpdateInferenceGraph, request).details()
    missing = inference_graph_pb2.GetInferenceGraphRequest(name=f"{PARENT}/inferencegraphs/nothing")
    assert refused(stub.GetInferenceGraph, missing).code() is grpc.StatusCode.NOT_FOUND
    missing = inference_graph_pb2.DeleteInferenceGraphRequest(name=f"{PARENT}/inferencegraphs/nothing")
    assert refused(stub.DeleteInferenceGraph, missing).code() is grpc.StatusCode.NOT_FOUND

    url = f"{service.http}/v1/graphs/again"
    assert httpx.post(f"{url}:explain", json={}).status_code == 404
    assert httpx.post(f"{url}:infer", content=b"{").status_code == 400
    headers = {"inference-header-content-length": "99"}
    assert httpx.post(f"{url}:infer", content=b"{}", headers=headers).status_code == 400
    assert httpx.post(f"{url}:infer", content=b"{}", headers={"content-encoding": "gzip"}).status_code == 400
    nobody = {"kubeflow-userid": "stranger@example.com"}
    assert httpx.post(f"{url}:infer", json={"instances": [ROW]}, headers=nobody).status_code == 403
