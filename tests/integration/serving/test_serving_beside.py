"""Payload logging, detectors and explanations through the doors of a real service."""

import grpc
import httpx
import joblib
import numpy as np
import pytest
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_protos.inference import grpc_service_pb2_grpc
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as control
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2_grpc
from sklearn.linear_model import LinearRegression
from support.event_sink import EventSink, wait_for

WEIGHTS = np.array([1.0, -2.0, 0.5])


@pytest.fixture(scope="module")
def sink():
    sink = EventSink()
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("beside")
    folder = data_dir / "artifacts" / "linear"
    folder.mkdir(parents=True)
    rows = np.random.default_rng(0).normal(size=(400, 3))
    np.save(data_dir / "artifacts" / "rows.npy", rows)
    joblib.dump(LinearRegression().fit(rows, rows @ WEIGHTS + 4), folder / "model.joblib")
    settings = {"OBSERVER_NICE": "0"}  # on a busy machine it would wait for long
    with ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", data_dir, settings) as process:
        yield process


def manifest(service, name, url, **spec):
    artifacts = f"file://{service.data_dir}/artifacts"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": {"owner": "me"}},
        "spec": {
            "predictor": {
                "model": {"modelFormat": {"name": "sklearn"}, "storageUri": f"{artifacts}/linear"},
                "logger": {"url": url, "metadataHeaders": ["X-Trace"], "metadataAnnotations": ["owner"]},
            },
            "detectors": [
                {"name": "drift", "type": "ks", "storageUri": f"{artifacts}/rows.npy", "parameters": {"window": 20}}
            ],
            "explainer": {"occlusion": {"storageUri": f"{artifacts}/rows.npy"}},
            **spec,
        },
    }


def create(service, made):
    request = control.CreateInferenceServiceRequest(parent="namespaces/default")
    json_format.ParseDict(made, request.manifest)
    with service.channel() as channel:
        return inference_service_pb2_grpc.ServingServiceStub(channel).CreateInferenceService(request)


def test_predictions_are_logged_watched_and_explained(service, sink):
    with httpx.Client(base_url=service.http, timeout=60) as client:
        create(service, manifest(service, "linear", sink.url))
        wait_for(lambda: client.get("/v2/models/linear/ready").status_code == 200)
        instances = {"instances": [[3.0, 3.0, 3.0]] * 20}
        headers = {"X-Trace": "abc", "ce-id": "first", "authorization": "Bearer secret"}
        answer = client.post("/v1/models/linear:predict", json=instances, headers=headers)
        assert np.allclose(answer.json()["predictions"], 3 * WEIGHTS.sum() + 4)
        wait_for(lambda: len(sink.of_type(".request")) == 1 and len(sink.of_type(".response")) == 1)
        (asked,) = sink.of_type(".request")
        assert (asked["id"], asked["inferenceservicename"], asked["namespace"]) == ("first", "linear", "default")
        assert asked["metadata"] == '{"x-trace":["abc"]}'
        assert asked["annotations"] == '{"owner":"me"}'
        assert sink.of_type(".response")[0].body == answer.content
        with service.channel() as channel:
            request = oip.ModelInferRequest(model_name="linear")
            request.inputs.add(name="x", datatype="FP64", shape=[1, 3]).contents.fp64_contents.extend([1, 2, 3])
            grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
        wait_for(lambda: any(b'"data":[1.0,2.0,3.0]' in event.body for event in sink.of_type(".request")))
        wait_for(lambda: sink.of_type(".drift"))

        def found():
            (revision,) = client.get("/v2/models/linear/detectors").json()["revisions"]
            return revision["detectors"][0]

        wait_for(lambda: found().get("drifts") == 1)
        metrics = client.get("/metrics").text
        assert 'mlmesh_serving_drifts_total{detector="drift",model="linear",namespace="default"} 1.0' in metrics

        logged = len(sink.of_type(".request"))
        explained = client.post("/v1/models/linear:explain", json={"instances": [[1.0, 1.0, 1.0]]})
        assert explained.status_code == 200, explained.text
        rows = np.load(service.data_dir / "artifacts" / "rows.npy")
        expected = WEIGHTS * (1 - rows.mean(axis=0))
        np.testing.assert_allclose(explained.json()["explanations"]["values"], [expected])
        tensor = {"name": "x", "datatype": "FP64", "shape": [1, 3], "data": [1, 1, 1]}
        v2 = client.post("/v2/models/linear/explain", json={"inputs": [tensor]}).json()
        np.testing.assert_allclose(v2["outputs"][0]["data"], expected)
        wrong = client.post("/v1/models/linear:explain", json={"instances": [[1.0]]})
        assert (wrong.status_code, "must have 3 features" in wrong.json()["message"]) == (400, True)
        assert found()["instances"] == 21  # what an explainer makes up is not watched
        assert len(sink.of_type(".request")) == logged


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"url": "http://169.254.169.254/"}, "INVALID_ARGUMENT", "spec.predictor.logger.url"),
        ({"url": "file:///etc"}, "FAILED_PRECONDITION", "spec.predictor.logger.url"),
        (
            {"detectors": [{"name": "d", "type": "ks", "storageUri": "file:///etc/passwd"}]},
            "FAILED_PRECONDITION",
            "spec.detectors[0].storageUri",
        ),
        ({"detectors": [{"name": "d", "type": "lof"}]}, "INVALID_ARGUMENT", "spec.detectors[0].type"),
        (
            {"explainer": {"shap": {"storageUri": "file:///etc/passwd"}}},
            "FAILED_PRECONDITION",
            "spec.explainer.shap.storageUri",
        ),
        (
            {"explainer": {"python": {"class": "a:B", "storageUri": "file:///etc"}}},
            "FAILED_PRECONDITION",
            "spec.explainer.python",
        ),
        ({"explainer": {"remote": {"url": "http://127.0.0.1:1/"}}}, "FAILED_PRECONDITION", "spec.explainer.remote"),
    ],
)
def test_what_cannot_be_had_is_refused_at_the_door(service, sink, change, code, told):
    change = dict(change)
    made = manifest(service, "refused", change.pop("url", sink.url), **change)
    with pytest.raises(grpc.RpcError) as refused:
        create(service, made)
    assert (refused.value.code().name, told in refused.value.details()) == (code, True), refused.value.details()
