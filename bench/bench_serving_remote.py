"""What a router adds in front of a model elsewhere, for one client: the same model asked directly and through it.

Both routers and the client are processes of their own; direct and passed-through rounds take turns, so that what else
the machine does hits both. `python -m bench serving_remote`.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import joblib
import numpy as np
import uvloop
from google.protobuf import json_format
from mlmesh_kit.http2.client import RawClient
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as control
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2_grpc
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

ROUNDS = 9
REQUESTS = 400
METHOD = "/inference.GRPCInferenceService/ModelInfer"
Ask = Callable[[], Awaitable[object]]


def serve(process: ServiceProcess, name: str, predictor: dict) -> None:
    """Makes an InferenceService and waits until it is ready."""
    made = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": predictor},
    }
    request = control.CreateInferenceServiceRequest(parent="namespaces/default")
    json_format.ParseDict(made, request.manifest)
    with process.channel() as channel:
        stub = inference_service_pb2_grpc.ServingServiceStub(channel)
        found = stub.CreateInferenceService(request)
        while next(c for c in found.status.conditions if c.type == "Ready").status != "True":
            time.sleep(0.05)
            found = stub.GetInferenceService(control.GetInferenceServiceRequest(name=found.name))


async def p50(ask: Ask, requests: int) -> float:
    """Gives the median of so many requests, one after the other, in milliseconds."""
    seconds = []
    for _ in range(requests):
        started = time.perf_counter()
        await ask()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e3


async def compare(direct: Ask, passed: Ask) -> tuple[list[float], list[float]]:
    """Gives the p50 of each round: direct, and passed through."""
    await p50(direct, REQUESTS)
    await p50(passed, REQUESTS)
    rounds = [(await p50(direct, REQUESTS), await p50(passed, REQUESTS)) for _ in range(ROUNDS)]
    return [before for before, _ in rounds], [after for _, after in rounds]


def grpc_asker(process: ServiceProcess, model: str, elements: int) -> Ask:
    """Gives what asks a model by gRPC, with a tensor of so many doubles in rows of four."""
    request = oip.ModelInferRequest(model_name=model, raw_input_contents=[np.zeros(elements).tobytes()])
    request.inputs.add(name="x", datatype="FP64", shape=[elements // 4, 4])
    message = request.SerializeToString()
    client = RawClient(process.grpc)
    return lambda: client.call(METHOD, message)


def http_asker(session: aiohttp.ClientSession, process: ServiceProcess, model: str) -> Ask:
    """Gives what asks a model by REST v2."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}
    body = json.dumps({"inputs": [tensor]}).encode()

    async def ask() -> bytes:
        headers = {"content-type": "application/json"}
        async with session.post(f"{process.http}/v2/models/{model}/infer", data=body, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.read()

    return ask


async def measure(behind: ServiceProcess, front: ServiceProcess) -> None:
    async with aiohttp.ClientSession() as session:
        rows = [
            ("gRPC, 1x4", grpc_asker(behind, "iris", 4), grpc_asker(front, "by-grpc", 4)),
            ("gRPC, 1 MiB", grpc_asker(behind, "iris", 1 << 17), grpc_asker(front, "by-grpc", 1 << 17)),
            ("REST, 1x4", http_asker(session, behind, "iris"), http_asker(session, front, "by-http")),
        ]
        print(
            f"p50 in ms, of {ROUNDS} rounds of {REQUESTS} requests by one client; the best round is the least disturbed"
        )
        print(f"{'':14}{'direct':>10}{'through':>10}{'added':>10}{'best direct':>14}{'best through':>14}{'added':>10}")
        for name, direct, passed in rows:
            before, after = await compare(direct, passed)
            added = statistics.median(a - b for b, a in zip(before, after, strict=True))
            print(f"{name:14}{statistics.median(before):10.3f}{statistics.median(after):10.3f}{added:10.3f}", end="")
            print(f"{min(before):14.3f}{min(after):14.3f}{min(after) - min(before):10.3f}")


def main() -> None:
    data = load_iris()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        joblib.dump(LogisticRegression(max_iter=1000).fit(data.data, data.target), folder / "model.joblib")
        roots = {"MODEL_ROOTS": f"file://{folder}", "PICKLE_ROOTS": f"file://{folder}"}
        one = ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", Path(scratch) / "behind", roots)
        other = ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", Path(scratch) / "front", roots)
        with one as behind, other as front:
            serve(behind, "iris", {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": f"file://{folder}"}})
            serve(front, "by-grpc", {"remote": {"url": f"grpc://{behind.grpc}", "model": "iris"}})
            serve(front, "by-http", {"remote": {"url": behind.http, "model": "iris"}})
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(behind, front))


if __name__ == "__main__":
    main()
