"""A serving router in front of another one: predictors and preprocessors elsewhere, by each door, and when it dies."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

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
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

ROW = [5.1, 3.5, 1.4, 0.2]
SERVICE = "inference.GRPCInferenceService"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    data = load_iris()
    joblib.dump(LogisticRegression(max_iter=1000).fit(data.data, data.target), folder / "model.joblib")
    return folder


def router(folder, data_dir, **settings) -> ServiceProcess:
    roots = {"MODEL_ROOTS": f"file://{folder}", "PICKLE_ROOTS": f"file://{folder}"}
    return ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", data_dir, {**roots, **settings})


@pytest.fixture(scope="module")
def behind(model_folder, tmp_path_factory):
    ports = {"GRPC_PORT": str(free_port()), "HTTP_PORT": str(free_port())}
    with router(model_folder, tmp_path_factory.mktemp("behind"), **ports) as process:
        create(process, "iris", {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": f"file://{model_folder}"}})
        wait(process, "iris")
        yield process


@pytest.fixture(scope="module")
def front(behind, model_folder, tmp_path_factory):
    with router(model_folder, tmp_path_factory.mktemp("front")) as process:
        create(process, "by-grpc", {"remote": {"url": f"grpc://{behind.grpc}", "model": "iris"}})
        create(process, "by-http", {"remote": {"url": behind.http, "model": "iris"}})
        for name in ("by-grpc", "by-http"):
            wait(process, name)
        yield process


def create(process: ServiceProcess, name: str, predictor: dict, **spec) -> None:
    request = control.CreateInferenceServiceRequest(parent="namespaces/default")
    made = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": predictor, **spec},
    }
    json_format.ParseDict(made, request.manifest)
    with process.channel() as channel:
        inference_service_pb2_grpc.ServingServiceStub(channel).CreateInferenceService(request)


def wait(process: ServiceProcess, name: str, word: str = "") -> None:
    """Waits until a model is ready, or says a word of why it is not."""
    request = control.GetInferenceServiceRequest(name=f"namespaces/default/inferenceservices/{name}")
    deadline = time.monotonic() + 60
    with process.channel() as channel:
        while True:
            found = inference_service_pb2_grpc.ServingServiceStub(channel).GetInferenceService(request)
            ready = next(c for c in found.status.conditions if c.type == "Ready")
            if word in ready.message if word else ready.status == "True":
                return
            assert time.monotonic() < deadline, ready
            time.sleep(0.05)


def infer(process: ServiceProcess, model: str) -> oip.ModelInferResponse:
    request = oip.ModelInferRequest(model_name=model, id="7", raw_input_contents=[np.array(ROW).tobytes()])
    request.inputs.add(name="x", datatype="FP64", shape=[1, 4])
    with process.channel() as channel:
        return grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)


@pytest.mark.parametrize("model", ["by-grpc", "by-http"])
def test_every_door_leads_to_the_model_behind(front, behind, model: str) -> None:
    answer = infer(front, model)
    assert (answer.model_name, answer.model_version, answer.id) == (model, "1", "7")
    assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == [0]
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": ROW}
    answer = httpx.post(f"{front.http}/v2/models/{model}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [0]
    answer = httpx.post(f"{front.http}/v1/models/{model}:predict", json={"instances": [ROW]})
    assert answer.json() == {"predictions": [0]}
    tensor |= {"shape": [1, 3], "data": ROW[:3]}
    answer = httpx.post(f"{front.http}/v2/models/{model}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400 and "the predictor: " in answer.json()["error"]


def test_a_preprocessor_elsewhere_feeds_a_model_here(front, model_folder) -> None:
    def halve(message: bytes, context) -> bytes:
        request = oip.ModelInferRequest.FromString(message)
        data = np.frombuffer(request.raw_input_contents[0]) / 2
        answer = oip.ModelInferResponse(model_name="halve", raw_output_contents=[data.tobytes()])
        answer.outputs.add(name="halves", datatype="FP64", shape=[1, 4])
        return answer.SerializeToString()

    def yes(message: bytes, context) -> bytes:
        return oip.ModelReadyResponse(ready=True).SerializeToString()

    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(halve),
        "ModelReady": grpc.unary_unary_rpc_method_handler(yes),
        "ServerReady": grpc.unary_unary_rpc_method_handler(yes),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        local = {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": f"file://{model_folder}"}}
        create(front, "halved", local, preprocessor={"remote": {"url": f"grpc://localhost:{port}", "model": "halve"}})
        wait(front, "halved")
        answer = infer(front, "halved")
        expected = joblib.load(model_folder / "model.joblib").predict(np.array([ROW]) / 2)
        assert answer.model_name == "halved"
        assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == expected.tolist()
    finally:
        server.stop(None)


@pytest.mark.parametrize(
    ("predictor", "spec", "says"),
    [
        ({"remote": {"url": "http://169.254.169.254/"}}, {}, "is no host that this server may call"),
        ({"remote": {"url": "http://10.1.2.3/"}}, {}, "is no host that this server may call"),
        ({"remote": {"url": "http://a:b@localhost:1"}}, {}, "must not hold a user"),
        (
            {"remote": {"url": "grpc://localhost:1"}},
            {"preprocessor": {"python": {"class": "a:b", "storageUri": "file:///x"}}},
            "beside a predictor elsewhere, stages are elsewhere too",
        ),
    ],
)
def test_what_cannot_be_put_together_is_refused(front, predictor: dict, spec: dict, says: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        create(front, "refused", predictor, **spec)
    assert says in error.value.details()


def test_openai_routes_want_a_server_that_has_them(front) -> None:
    answer = httpx.post(f"{front.http}/openai/v1/chat/completions", json={"model": "by-http", "messages": []})
    assert answer.status_code == 400 and "has no server with OpenAI's routes" in answer.json()["error"]
    assert httpx.get(f"{front.http}/openai/v1/models").json() == {"object": "list", "data": []}


def test_a_server_behind_that_dies_comes_back(front, behind) -> None:
    create(front, "waiting", {"remote": {"url": f"grpc://{behind.grpc}", "model": "not-there"}})
    wait(front, "waiting", "the predictor")
    behind.kill()
    for model in ("by-grpc", "by-http"):
        with pytest.raises(grpc.RpcError) as error:
            infer(front, model)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE and "the predictor" in error.value.details()
    behind.start()
    wait(behind, "iris")
    deadline = time.monotonic() + 30
    for model in ("by-grpc", "by-http"):
        while True:
            try:
                assert infer(front, model).model_name == model
                break
            except grpc.RpcError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
