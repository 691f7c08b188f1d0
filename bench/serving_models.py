"""The models that bench_serving serves, and the requests that it sends: the same files and bytes for every server."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import joblib
import numpy as np
from mlmesh_protos.inference import grpc_service_pb2, grpc_service_pb2_grpc
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

WIDE = 262_144
"""Elements of a tensor of 1 MiB of FP32."""
DATATYPES = {"float32": "FP32", "float64": "FP64"}
DOORS = ("gRPC", "REST", "REST binary")
STAGES = """
import numpy as np

def scale(data: np.ndarray) -> np.ndarray:
    return data * 1.0

def label(classes: np.ndarray) -> dict:
    return {"label": classes}
"""


@dataclass(frozen=True)
class Model:
    """A model, and one input for it.

    Attributes:
        name: Of it, and of its folder.
        estimator: Of scikit-learn.
        data: The input.
    """

    name: str
    estimator: Any
    data: NDArray[Any]

    @property
    def expected(self) -> list[float]:
        """What it answers, by scikit-learn itself."""
        found: list[float] = np.asarray(self.estimator.predict(self.data)).ravel().tolist()
        return found

    def write(self, folder: Path) -> Path:
        """Writes it below a folder, with stages that do almost nothing; gives its file."""
        file = folder / self.name / "model.joblib"
        file.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(self.estimator, file)
        (file.parent / "stages.py").write_text(STAGES)
        return file


def iris(name: str = "iris", strength: float = 1.0) -> Model:
    """Gives LogisticRegression on the iris data, and one flower: FP64, 1x4."""
    found = load_iris()
    estimator = LogisticRegression(C=strength, max_iter=1000).fit(found.data, found.target)
    return Model(name, estimator, found.data[:1])


def wide() -> Model:
    """Gives a linear model with one output, and 1 MiB for it: FP32, 1x262144."""
    generator = np.random.default_rng(0)
    estimator = LinearRegression()
    estimator.coef_ = generator.standard_normal(WIDE).astype(np.float32)
    estimator.intercept_ = 0.0
    estimator.n_features_in_ = WIDE
    return Model("wide", estimator, generator.standard_normal((1, WIDE)).astype(np.float32))


@dataclass(frozen=True)
class Request:
    """A request as h2load sends it.

    Attributes:
        door: One of `DOORS`.
        model: Name of the model.
        path: Of the URL.
        headers: `name: value`.
        body: The bytes; of gRPC with the five before the message.
    """

    door: str
    model: str
    path: str
    headers: Sequence[str]
    body: bytes

    @property
    def http1(self) -> bool:
        """Whether it goes by HTTP/1.1."""
        return self.door != "gRPC"


def message(model: str, data: NDArray[Any]) -> Any:
    """Makes a ModelInferRequest with raw contents, as tritonclient does."""
    request = grpc_service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="input", datatype=DATATYPES[data.dtype.name], shape=data.shape)
    request.raw_input_contents.append(data.tobytes())
    return request


def request(door: str, model: str, data: NDArray[Any]) -> Request:
    """Makes a request for a door."""
    if door == "gRPC":
        body = message(model, data).SerializeToString()
        headers = ["content-type: application/grpc", "te: trailers"]
        path = "/inference.GRPCInferenceService/ModelInfer"
        return Request(door, model, path, headers, b"\0" + len(body).to_bytes(4, "big") + body)
    tensor: dict[str, Any] = {"name": "input", "shape": data.shape, "datatype": DATATYPES[data.dtype.name]}
    path = f"/v2/models/{model}/infer"
    if door == "REST":
        tensor["data"] = data.ravel().tolist()
        return Request(door, model, path, ["content-type: application/json"], json.dumps({"inputs": [tensor]}).encode())
    tensor["parameters"] = {"binary_data_size": data.nbytes}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = ["content-type: application/octet-stream", f"inference-header-content-length: {len(head)}"]
    return Request(door, model, path, headers, head + data.tobytes())


def ask(sent: Request, grpc_address: str, url: str) -> tuple[list[float], int]:
    """Sends a request once, with a stock client; gives the first output's values, and the bytes of the answer's body.

    Raises:
        grpc.RpcError, httpx.HTTPStatusError: It was refused.
    """
    if sent.door == "gRPC":
        with grpc.insecure_channel(grpc_address) as channel:
            question = grpc_service_pb2.ModelInferRequest.FromString(sent.body[5:])
            answer = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(question, timeout=30)
        return values(answer), 5 + len(answer.SerializeToString())
    headers = dict(header.split(": ", 1) for header in sent.headers)
    response = httpx.post(url + sent.path, content=sent.body, headers=headers, timeout=30).raise_for_status()
    found: list[float] = np.ravel(response.json()["outputs"][0]["data"]).tolist()
    return found, len(response.content)


def values(answer: Any) -> list[float]:
    """Gives the values of the first output of a ModelInferResponse, raw or typed."""
    output = answer.outputs[0]
    if answer.raw_output_contents:
        kinds = {"INT64": "<i8", "INT32": "<i4", "FP32": "<f4", "FP64": "<f8"}
        found: list[float] = np.frombuffer(answer.raw_output_contents[0], kinds[output.datatype]).tolist()
        return found
    contents = output.contents
    field = {"INT64": "int64_contents", "INT32": "int_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}
    return list(getattr(contents, field[output.datatype]))
