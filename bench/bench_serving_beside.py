"""What payload logging and detectors cost the predictions of a real service, by REST, with a real scikit-learn model.

Two InferenceServices of one model: one plain, one with a payload logger (mode all, to an HTTP sink, a process that
stands back as if it were on another machine) and two detectors. Rounds take turns, so that whatever else the machine
does meets both; told are the percentiles of all rounds together, and the medians over pairs of rounds.
"""

import asyncio
import contextlib
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import orjson
import uvloop
from google.protobuf import json_format
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as control
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2_grpc
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from bench.bench_serving_observers import PEERS

ROUNDS = 20
SECONDS = 1.0


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport):
        self._transport = transport
        self._buffer = b""

    def ask(self, request):
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data):
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) >= end + 4 + length:
            assert head.startswith(b"http/1.1 200"), self._buffer
            self._buffer = b""
            self._answered.set_result(None)


async def load(clients, requests):
    """Each client asks again when it has its answer; gives latencies in seconds."""
    latencies = []
    end = time.perf_counter() + SECONDS

    async def one(number, client):
        while (started := time.perf_counter()) < end:
            await client.ask(requests[number % len(requests)])
            latencies.append(time.perf_counter() - started)
            number += 7

    await asyncio.gather(*(one(number, client) for number, client in enumerate(clients)))
    return latencies


def create(service, name, spec):
    """Makes an InferenceService and waits until it answers."""
    request = control.CreateInferenceServiceRequest(parent="namespaces/default")
    made = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": name}}
    json_format.ParseDict({**made, "spec": spec}, request.manifest)
    with service.channel() as channel:
        stub = inference_service_pb2_grpc.ServingServiceStub(channel)
        stub.CreateInferenceService(request)
        found = control.GetInferenceServiceRequest(name=f"namespaces/default/inferenceservices/{name}")
        while {c.type: c.status for c in stub.GetInferenceService(found).status.conditions}.get("Ready") != "True":
            time.sleep(0.1)


def post(name, row):
    """Gives a request's bytes."""
    body = orjson.dumps({"instances": row})
    return f"POST /v1/models/{name}:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def compare(service, rows):
    """Prints both, for some numbers of clients."""
    port = int(service.http.rpartition(":")[2])
    loop = asyncio.get_running_loop()
    connected = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(16)]
    requests = {name: [post(name, [row]) for row in rows.tolist()] for name in ("plain", "observed")}
    for count in (1, 4, 16):
        pairs = []
        every = {"plain": [], "observed": []}
        for _ in range(ROUNDS):
            found = []
            for name in every:
                latencies = sorted(await load(connected[:count], requests[name]))
                every[name] += latencies
                found.append([latencies[int(len(latencies) * share)] for share in (0.5, 0.99)] + [len(latencies)])
                await asyncio.sleep(0.2)
            pairs.append([on / off for off, on in zip(*found, strict=True)])
        print(f"\n{count} clients: {ROUNDS} rounds of {SECONDS:g} s each")
        places = {}
        for name, latencies in every.items():
            latencies.sort()
            places[name] = [latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99)]
            p50, p99 = places[name]
            rate = len(latencies) / ROUNDS / SECONDS
            print(f"  {name:8}  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  {rate:5.0f} requests/s")
        ratios = [on / off for off, on in zip(places["plain"], places["observed"], strict=True)]
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        print(f"  observed/plain of all rounds: p50 {ratios[0]:.3f}, p99 {ratios[1]:.3f}")
        print(f"  median over pairs of rounds:  p50 {medians[0]:.3f}, p99 {medians[1]:.3f}, rate {medians[2]:.3f}")


def main():
    rows, labels = load_iris(return_X_y=True)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    sink = subprocess.Popen(
        ["nice", "-n", "19", *PEERS, "sink", str(listener.fileno())],
        pass_fds=[listener.fileno()],
        start_new_session=True,
    )
    with contextlib.suppress(OSError):
        Path(f"/proc/{sink.pid}/autogroup").write_text("19")
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Path(folder) / "artifacts"
        artifacts.mkdir()
        joblib.dump(LogisticRegression(max_iter=1000).fit(rows, labels), artifacts / "model.joblib")
        np.save(artifacts / "rows.npy", np.repeat(rows, 10, axis=0))
        model = {"modelFormat": {"name": "sklearn"}, "storageUri": (artifacts / "model.joblib").as_uri()}
        reference = (artifacts / "rows.npy").as_uri()
        logger = {"url": f"http://127.0.0.1:{listener.getsockname()[1]}/"}
        detectors = [
            {"name": "drift", "type": "ks", "storageUri": reference},
            {"name": "odd", "type": "knn", "storageUri": reference},
        ]
        try:
            with ServiceProcess("mlmesh_serving", "MLMESH_SERVING_", Path(folder)) as service:
                create(service, "plain", {"predictor": {"model": model}})
                create(service, "observed", {"predictor": {"model": model, "logger": logger}, "detectors": detectors})
                time.sleep(3)
                uvloop.run(compare(service, rows))
                import httpx

                text = httpx.get(f"{service.http}/metrics").text
                kept = ("mlmesh_serving_observations_dropped_total{", "mlmesh_serving_payload_events_total{")
                print("\n" + "\n".join(line for line in text.splitlines() if line.startswith(kept)))
        finally:
            sink.kill()


if __name__ == "__main__":
    main()
