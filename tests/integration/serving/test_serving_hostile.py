"""Requests that mean nothing, at all doors: an answer that says what is wrong, and the worker lives on."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import joblib
import numpy as np
import psutil
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as control
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2_grpc
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
CALLERS_FAULT = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
ROW = [5.1, 3.5, 1.4, 0.2]
GOOD = oip.ModelInferRequest(
    model_name="iris", inputs=[oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[1, 4])]
)


class Door:
    """The service, and what tells whether a worker has ended."""

    def __init__(self, service: ServiceProcess) -> None:
        self.channel = grpc.insecure_channel(service.grpc)
        self.infer = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        self.http = httpx.Client(base_url=service.http, timeout=30)
        self._service = service

    def processes(self) -> set[int]:
        return {process.pid for process in psutil.Process(self._service.pid).children(recursive=True)}

    def code(self, body: bytes) -> grpc.StatusCode:
        try:
            self.infer(body, timeout=30)
        except grpc.RpcError as error:
            assert "Traceback" not in error.details()
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    data_dir = tmp_path_factory.mktemp("hostile")
    folder = data_dir / "artifacts" / "iris"
    folder.mkdir(parents=True)
    data = load_iris()
    joblib.dump(LogisticRegression(max_iter=1000).fit(data.data, data.target), folder / "model.joblib")
    with ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", data_dir) as service:
        made = Door(service)
        request = control.CreateInferenceServiceRequest(parent="namespaces/default")
        predictor = {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": folder.as_uri()}}
        manifest = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "iris"},
            "spec": {"predictor": predictor},
        }
        json_format.ParseDict(manifest, request.manifest)
        inference_service_pb2_grpc.ServingServiceStub(made.channel).CreateInferenceService(request)
        made.http.post("/v2/repository/models/iris/load").raise_for_status()
        before = made.processes()
        yield made
        good = good_request()
        assert made.code(good.SerializeToString()) is grpc.StatusCode.OK
        assert made.processes() == before, "a worker has ended"


def good_request() -> oip.ModelInferRequest:
    made = oip.ModelInferRequest()
    made.CopyFrom(GOOD)
    made.raw_input_contents.append(struct.pack("<4d", *ROW))
    return made


@FUZZ
@given(st.data())
def test_bytes_that_are_changed_cut_or_added(door: Door, data: st.DataObject) -> None:
    body = bytearray(good_request().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1)) if body else 0
        change = data.draw(st.sampled_from(["set", "cut", "add"]))
        if change == "cut":
            del body[at:]
        elif change == "add":
            body[at:at] = data.draw(st.binary(max_size=9))
        elif body:
            body[at] = data.draw(st.integers(0, 255))
    assert door.code(bytes(body)) in {grpc.StatusCode.OK, *CALLERS_FAULT}


@FUZZ
@given(st.binary(max_size=80))
def test_any_bytes(door: Door, body: bytes) -> None:
    assert door.code(body) in CALLERS_FAULT
    for path in ("/v2/models/iris/infer", "/v1/models/iris:predict"):
        answer = door.http.post(path, content=body)
        assert answer.status_code == 400 and "Traceback" not in answer.text


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP64", "shape": [1, 4], "data": ROW, **changes}


WORDS = st.sampled_from(["x", "FP64", "INT8", "BYTES", "BOOL", "", "\x00", "é"]) | st.text(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {}, optional={"name": VALUES, "datatype": VALUES, "shape": VALUES, "data": VALUES, "parameters": VALUES}
).map(lambda changes: tensor(**changes))


@FUZZ
@given(
    st.lists(TENSORS | VALUES, max_size=3), st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), VALUES)
)
@example([tensor(shape=[2, 4])], {})
@example([tensor(shape=[2**31, 2**31])], {})
@example([tensor(shape=[-1, 4])], {})
@example([tensor(data=[[1, 2], [3]])], {})
@example([tensor(parameters={"binary_data_size": 2**31})], {})
def test_json_of_any_form(door: Door, inputs: list[Any], others: dict[str, Any]) -> None:
    answer = door.http.post("/v2/models/iris/infer", content=json.dumps({"inputs": inputs, **others}))
    assert answer.status_code in {200, 400}, answer.text
    assert answer.status_code == 200 or answer.json()["error"]
    assert door.http.post("/v1/models/iris:predict", content=json.dumps({"instances": inputs})).status_code in {
        200,
        400,
    }


@pytest.mark.parametrize(
    "shape", [[1, 5], [2, 4], [2**31 - 1, 4], [2**62, 2**62], [-1, 4], [0, 4], [], [4], [1] * 64, [2**28]]
)
def test_a_shape_that_lies_about_its_data(door: Door, shape: list[int]) -> None:
    made = good_request()
    made.inputs[0].shape[:] = shape
    assert door.code(made.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT
    made.ClearField("raw_input_contents")
    made.inputs[0].contents.fp64_contents[:] = ROW
    assert door.code(made.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT
    body = json.dumps({"inputs": [tensor(shape=shape, parameters={"binary_data_size": 32}, data=None)]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(body))}
    answer = door.http.post("/v2/models/iris/infer", content=body + np.array(ROW).tobytes(), headers=headers)
    assert answer.status_code == 400, answer.text


def test_two_gigabytes_are_declared_and_two_bytes_sent(door: Door) -> None:
    made = good_request()
    made.inputs[0].shape[:] = [2**29, 1]
    made.raw_input_contents[0] = b"\x00\x00"
    assert door.code(made.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT
    body = json.dumps({"inputs": [tensor(shape=[2**29, 1], parameters={"binary_data_size": 2**31})]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(body))}
    answer = door.http.post("/v2/models/iris/infer", content=body + b"\x00\x00", headers=headers)
    assert answer.status_code == 400 and "elements" in answer.text
    body = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 2**31})]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(body))}
    answer = door.http.post("/v2/models/iris/infer", content=body + b"\x00\x00", headers=headers)
    assert answer.status_code == 400 and "binary_data_size" in answer.text
    headers = {"Inference-Header-Content-Length": str(2**31)}
    assert door.http.post("/v2/models/iris/infer", content=body, headers=headers).status_code == 400
