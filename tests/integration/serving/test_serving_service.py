"""The serving router as a real process: InferenceServices, both doors, bad input, kill -9."""

import json
import time
from pathlib import Path

import grpc
import httpx
import joblib
import numpy as np
import psutil
import pytest
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_protos.inference import grpc_service_pb2_grpc
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as control
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2_grpc
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

STAGES = """
import pathlib
import time

import numpy as np

class Halve:
    def __call__(self, data: np.ndarray) -> np.ndarray:
        if (data < 0).any():
            raise ValueError("negative lengths")
        return data / 2.0

async def label(probabilities: np.ndarray) -> dict:
    return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}

class Around:
    made = 0

    def __init__(self):
        Around.made += 1

    def preprocess(self, data: np.ndarray) -> np.ndarray:
        return data * 2.0

    def postprocess(self, probabilities: np.ndarray) -> dict:
        return {"label": probabilities.argmax(axis=1), "made": np.array([Around.made])}

class Neither:
    pass

def slow(a: np.ndarray) -> np.ndarray:
    open(pathlib.Path(__file__).with_name("begun"), "w").close()
    time.sleep(0.5)
    return a

def two_arguments(a, b):
    return a

def takes_text(a: str):
    return a
"""


@pytest.fixture(scope="module")
def iris():
    data = load_iris()
    return data.data, data.target, LogisticRegression(max_iter=1000).fit(data.data, data.target)


@pytest.fixture(scope="module")
def service(tmp_path_factory, iris):
    data_dir = tmp_path_factory.mktemp("serving")
    folder = data_dir / "artifacts" / "iris"
    folder.mkdir(parents=True)
    joblib.dump(iris[2], folder / "model.joblib")
    (folder / "stages.py").write_text(STAGES)
    with ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", data_dir) as process:
        yield process


def manifest(data_dir: Path, name: str, **spec) -> dict:
    uri = f"file://{data_dir}/artifacts/iris"
    predictor = {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri}}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": predictor, **spec},
    }


def staged(data_dir: Path, name: str, pre: str = "stages:Halve", post: str = "stages:label") -> dict:
    uri = f"file://{data_dir}/artifacts/iris"
    made = manifest(
        data_dir,
        name,
        preprocessor={"python": {"class": pre, "storageUri": uri}},
        postprocessor={"python": {"class": post, "storageUri": uri}},
    )
    made["spec"]["predictor"]["model"]["method"] = "predict_proba"
    return made


def stubs(process: ServiceProcess):
    channel = grpc.insecure_channel(process.grpc)
    return (
        grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel),
        inference_service_pb2_grpc.ServingServiceStub(channel),
    )


def create(process: ServiceProcess, made: dict) -> control.InferenceService:
    request = control.CreateInferenceServiceRequest(parent="namespaces/default")
    json_format.ParseDict(made, request.manifest)
    return stubs(process)[1].CreateInferenceService(request)


def wait_for(process: ServiceProcess, name: str, status: str = "True", seconds: float = 20) -> control.InferenceService:
    request = control.GetInferenceServiceRequest(name=f"namespaces/default/inferenceservices/{name}")
    deadline = time.monotonic() + seconds
    while True:
        found = stubs(process)[1].GetInferenceService(request)
        ready = {c.type: c for c in found.status.conditions}["Ready"]
        if ready.status == status:
            return found
        assert time.monotonic() < deadline, ready
        time.sleep(0.05)


@pytest.fixture(scope="module")
def plain(service):
    create(service, manifest(service.data_dir, "iris"))
    wait_for(service, "iris")
    return service


@pytest.fixture(scope="module")
def chained(service):
    create(service, staged(service.data_dir, "chained"))
    wait_for(service, "chained")
    return service


def infer_request(data: np.ndarray, *, raw: bool, model: str = "iris") -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=data.shape)
    if raw:
        return oip.ModelInferRequest(model_name=model, id="7", inputs=[tensor], raw_input_contents=[data.tobytes()])
    tensor.contents.fp64_contents.extend(data.ravel())
    return oip.ModelInferRequest(model_name=model, id="7", inputs=[tensor])


@pytest.mark.parametrize("raw", [True, False])
def test_grpc_answers_what_the_model_answers(plain, iris, raw):
    answer = stubs(plain)[0].ModelInfer(infer_request(iris[0], raw=raw))
    expected = iris[2].predict(iris[0])
    output = answer.outputs[0]
    got = np.frombuffer(answer.raw_output_contents[0], np.int64) if raw else np.array(output.contents.int64_contents)
    assert (answer.id, output.name, output.datatype, list(output.shape)) == ("7", "predict", "INT64", [150])
    assert np.array_equal(got, expected)


def test_rest_v2_and_v1_answer_what_the_model_answers(plain, iris):
    expected = iris[2].predict(iris[0][:5]).tolist()
    body = {"inputs": [{"name": "x", "shape": [5, 4], "datatype": "FP64", "data": iris[0][:5].tolist()}], "id": "a"}
    answer = httpx.post(f"{plain.http}/v2/models/iris/infer", json=body).json()
    assert (answer["id"], answer["model_version"], answer["outputs"][0]["data"]) == ("a", "1", expected)
    answer = httpx.post(f"{plain.http}/v1/models/iris:predict", json={"instances": iris[0][:5].tolist()}).json()
    assert answer == {"predictions": expected}


def test_binary_tensors_over_rest(plain, iris):
    data = np.ascontiguousarray(iris[0][:3])
    tensor = {"name": "x", "shape": [3, 4], "datatype": "FP64", "parameters": {"binary_data_size": data.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    answer = httpx.post(
        f"{plain.http}/v2/models/iris/infer",
        content=head + data.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    length = int(answer.headers["inference-header-content-length"])
    described = json.loads(answer.content[:length])["outputs"][0]
    assert described["parameters"]["binary_data_size"] == 24
    assert np.frombuffer(answer.content[length:], np.int64).tolist() == iris[2].predict(data).tolist()


def test_preprocessor_and_postprocessor_surround_the_model(chained, iris):
    answer = httpx.post(f"{chained.http}/v1/models/chained:predict", json={"instances": iris[0][:4].tolist()}).json()
    expected = iris[2].predict_proba(iris[0][:4] / 2)
    for row, probabilities in zip(answer["predictions"], expected, strict=True):
        assert row["label"] == probabilities.argmax()
        assert row["probabilities"] == pytest.approx(probabilities.tolist())


def test_a_stage_that_refuses_its_input_is_the_callers_fault(chained, iris):
    answer = httpx.post(f"{chained.http}/v1/models/chained:predict", json={"instances": (-iris[0][:1]).tolist()})
    assert answer.status_code == 400
    assert "preprocessor" in answer.json()["error"] and "negative lengths" in answer.json()["error"]


def test_wanted_outputs_only(chained, iris):
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": iris[0][0].tolist()}
    url = f"{chained.http}/v2/models/chained/infer"
    answer = httpx.post(url, json={"inputs": [tensor], "outputs": [{"name": "label"}]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    refused = httpx.post(url, json={"inputs": [tensor], "outputs": [{"name": "nope"}]})
    assert refused.status_code == 400 and "'nope'" in refused.json()["error"]


def test_metadata_readiness_and_index(plain):
    inference = stubs(plain)[0]
    assert inference.ServerLive(oip.ServerLiveRequest()).live
    assert inference.ModelReady(oip.ModelReadyRequest(name="iris")).ready
    assert not inference.ModelReady(oip.ModelReadyRequest(name="nope")).ready
    found = inference.ModelMetadata(oip.ModelMetadataRequest(name="iris"))
    assert (found.platform, list(found.versions), list(found.inputs[0].shape)) == ("sklearn", ["1"], [-1, 4])
    states = {m.name: m.state for m in inference.RepositoryIndex(oip.RepositoryIndexRequest()).models}
    assert states["iris"] == "READY"
    assert httpx.get(f"{plain.http}/v2/models/iris/ready").status_code == 200
    assert httpx.get(f"{plain.http}/v2/models/nope/ready").status_code == 404


def test_the_stream_goes_on_after_a_bad_request(plain, iris):
    good = infer_request(iris[0][:1], raw=True)
    answers = list(stubs(plain)[0].ModelStreamInfer(iter([good, infer_request(iris[0][:1, :2], raw=True), good])))
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert "[-1, 4]" in answers[1].error_message


def status_of(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r.inputs[0].ClearField("shape"), "must be 8 bytes"),
        (lambda r: r.inputs[0].shape.append(1 << 40), "must hold at most"),
        (lambda r: r.inputs[0].shape.append(-1), "no negative dimension"),
        (lambda r: setattr(r.inputs[0], "datatype", "FP65"), "inputs[0] (x).datatype"),
        (lambda r: setattr(r.inputs[0], "name", ""), "inputs[0].name"),
        (lambda r: r.ClearField("inputs"), "inputs"),
        (lambda r: r.raw_input_contents.append(b"12"), "raw_input_contents"),
        (lambda r: r.inputs[0].contents.fp64_contents.append(1), "contents"),
    ],
)
def test_grpc_names_what_is_wrong_with_a_tensor(plain, iris, change, expected):
    request = infer_request(iris[0][:1], raw=True)
    change(request)
    code, message = status_of(lambda: stubs(plain)[0].ModelInfer(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "must be JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"inputs": 1}', "inputs"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [NaN]}]}', "must be JSON"),
        (b'{"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1]}]}', "must hold 2 elements"),
        (b'{"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [[1],[2,3]]}]}', "nested evenly"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "UINT8", "data": [300]}]}', "beyond UINT8"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1.5]}]}', "must hold INT64"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ["1"]}]}', "list of numbers"),
        (b'{"inputs": [{"name": "x", "shape": [true], "datatype": "FP64", "data": [1]}]}', "list of integers"),
        (
            b'{"inputs": [{"name": "x", "shape": [268435456], "datatype": "FP64", "parameters": '
            b'{"binary_data_size": 2147483648}}]}',
            "must hold at most",
        ),
        (
            b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "parameters": '
            b'{"binary_data_size": 2147483648}}]}',
            "binary_data_size",
        ),
    ],
)
def test_rest_names_what_is_wrong_with_a_body(plain, body, expected):
    answer = httpx.post(f"{plain.http}/v2/models/iris/infer", content=body)
    assert answer.status_code == 400
    assert expected in answer.json()["error"]


def test_a_batcher_lets_requests_wait_for_one_another(service, iris):
    made = manifest(service.data_dir, "joined")
    made["spec"]["predictor"]["batcher"] = {"maxBatchSize": 2, "maxLatency": 60_000}
    create(service, made)
    wait_for(service, "joined")
    infer = stubs(service)[0].ModelInfer
    request = infer_request(iris[0][:1], raw=True, model="joined")
    code, _ = status_of(lambda: infer(request, timeout=0.3))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    answers = [infer.future(request, timeout=30) for _ in range(3)]  # one fills the batch of the one that was given up
    assert [answer.result().model_version for answer in answers] == ["1"] * 3


def test_unknown_models_are_not_found(plain, iris):
    code, message = status_of(lambda: stubs(plain)[0].ModelInfer(infer_request(iris[0], raw=True, model="nope")))
    assert (code, message) == (grpc.StatusCode.NOT_FOUND, "model 'nope' not found")
    assert httpx.post(f"{plain.http}/v1/models/nope:predict", json={"instances": [1]}).status_code == 404
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]}
    assert httpx.post(f"{plain.http}/v2/models/iris/versions/9/infer", json=body).status_code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: m.update(kind="Pod"), "manifest.kind"),
        (lambda m: m["metadata"].update(name="No_Good"), "manifest.metadata.name"),
        (lambda m: m["metadata"].update(namespace="other"), "manifest.metadata.namespace"),
        (lambda m: m.pop("spec"), "manifest.spec"),
        (lambda m: m["spec"].update(surprise=1), "manifest.spec.surprise"),
        (lambda m: m["spec"]["predictor"]["model"].pop("storageUri"), "manifest.spec.predictor.model.storageUri"),
        (lambda m: m["spec"]["predictor"]["model"]["modelFormat"].update(name="abc"), "modelFormat.name"),
        (lambda m: m["spec"]["predictor"]["model"].update(storageUri="file:///etc/passwd"), "storageUri"),
        (lambda m: m["spec"]["predictor"]["model"].update(storageUri="http://x/y"), "storageUri"),
        (lambda m: m["spec"].update(transformer={"containers": []}), "manifest.spec.transformer"),
    ],
)
def test_bad_manifests_are_refused_and_nothing_is_made(service, change, field):
    made = manifest(service.data_dir, "refused")
    change(made)
    code, message = status_of(lambda: create(service, made))
    assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    assert field in message
    name = "namespaces/default/inferenceservices/refused"
    request = control.GetInferenceServiceRequest(name=name)
    assert status_of(lambda: stubs(service)[1].GetInferenceService(request))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("stages:nothing", "has no nothing"),
        ("absent:Halve", "no module absent"),
        ("stages:two_arguments", "exactly one argument"),
        ("stages:takes_text", "numpy array or a dict"),
    ],
)
def test_bad_stages_are_caught_when_loading(service, target, message):
    name = target.replace(":", "-").replace("_", "-").lower()
    create(service, staged(service.data_dir, name, pre=target))
    found = wait_for(service, name, "False")
    assert message in {c.type: c for c in found.status.conditions}["Ready"].message
    answer = httpx.post(f"{service.http}/v1/models/{name}:predict", json={"instances": [[1, 2, 3, 4]]})
    assert answer.status_code == 503


def around(data_dir: Path, name: str, target: str) -> dict:
    uri = f"file://{data_dir}/artifacts/iris"
    made = manifest(data_dir, name, transformer={"python": {"class": target, "storageUri": uri}})
    made["spec"]["predictor"]["model"]["method"] = "predict_proba"
    return made


def test_a_transformer_is_made_once_and_is_both_stages(service, iris):
    create(service, around(service.data_dir, "around", "stages:Around"))
    wait_for(service, "around")
    answer = stubs(service)[0].ModelInfer(infer_request(iris[0] / 2.0, raw=True, model="around"))
    outputs = {
        o.name: np.frombuffer(c, np.int64) for o, c in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    assert np.array_equal(outputs["label"], iris[2].predict(iris[0])) and outputs["made"].tolist() == [1]


@pytest.mark.parametrize(
    ("target", "message"),
    [("stages:Neither", "neither of the methods preprocess, postprocess"), ("stages:label", "must be a class")],
)
def test_bad_transformers_are_caught_when_loading(service, target, message):
    name = target.replace(":", "-").lower()
    create(service, around(service.data_dir, name, target))
    assert message in {c.type: c for c in wait_for(service, name, "False").status.conditions}["Ready"].message


def test_an_update_that_fails_leaves_the_old_revision_answering(service, iris):
    create(service, manifest(service.data_dir, "updated"))
    wait_for(service, "updated")
    request = control.UpdateInferenceServiceRequest(name="namespaces/default/inferenceservices/updated")
    json_format.ParseDict(staged(service.data_dir, "updated", pre="stages:nothing"), request.manifest)
    stubs(service)[1].UpdateInferenceService(request)
    found = wait_for(service, "updated", "False")
    assert (found.status.latest_created_revision, found.status.latest_ready_revision) == (2, 1)
    answer = stubs(service)[0].ModelInfer(infer_request(iris[0][:1], raw=True, model="updated"))
    assert answer.model_version == "1"


def test_unload_load_and_delete(service, iris):
    create(service, manifest(service.data_dir, "moved"))
    wait_for(service, "moved")
    inference, serving = stubs(service)
    inference.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="moved"))
    code, message = status_of(lambda: inference.ModelInfer(infer_request(iris[0], raw=True, model="moved")))
    assert code is grpc.StatusCode.UNAVAILABLE and "not ready" in message
    inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="moved"))
    assert inference.ModelInfer(infer_request(iris[0], raw=True, model="moved")).model_version == "1"
    name = "namespaces/default/inferenceservices/moved"
    serving.DeleteInferenceService(control.DeleteInferenceServiceRequest(name=name))
    gone = status_of(lambda: inference.ModelInfer(infer_request(iris[0], raw=True, model="moved")))
    assert gone[0] is grpc.StatusCode.NOT_FOUND
    created = create(service, manifest(service.data_dir, "moved"))
    assert created.status.latest_created_revision == 2  # a number is never given twice


def test_another_user_may_do_nothing(plain, iris):
    stranger = (("kubeflow-userid", "eve@example.com"),)
    request = infer_request(iris[0], raw=True)
    code, _ = status_of(lambda: stubs(plain)[0].ModelInfer(request, metadata=stranger))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    headers = {"kubeflow-userid": "eve@example.com"}
    answer = httpx.post(f"{plain.http}/v1/models/iris:predict", json={"instances": [[1, 2, 3, 4]]}, headers=headers)
    assert answer.status_code == 403


def test_what_was_answered_survives_kill_9_and_no_process_does(tmp_path, iris):
    folder = tmp_path / "artifacts" / "iris"
    folder.mkdir(parents=True)
    joblib.dump(iris[2], folder / "model.joblib")
    (folder / "stages.py").write_text(STAGES)
    process = ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", tmp_path)
    with process:
        create(process, manifest(tmp_path, "iris"))
        wait_for(process, "iris")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 2  # the helper that workers are forked from, and the model's worker
        process.kill()
        assert not psutil.wait_procs(children, timeout=10)[1]
        process.start()
        assert len(list((tmp_path / "serving-router").glob("workers-*"))) == 1  # what was left is cleared away
        wait_for(process, "iris")
        answer = stubs(process)[0].ModelInfer(infer_request(iris[0], raw=True))
        assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.int64), iris[2].predict(iris[0]))

        # What is in flight when it is told to end is answered.
        create(process, staged(tmp_path, "slow", pre="stages:slow"))
        wait_for(process, "slow")
        answer = stubs(process)[0].ModelInfer.future(infer_request(iris[0][:1], raw=True, model="slow"))
        deadline = time.monotonic() + 20
        while not (folder / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.stop() == 0
        assert answer.result().model_name == "slow"
