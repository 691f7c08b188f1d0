"""What the rendered Envoy does with a service that is slow, breaks off, or has too much to do.

The service is the test's own, and does as it is told; deadlines, retries and circuit breakers are short.
"""

import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import grpc
import httpx
import pytest
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from mlmesh.description import Mesh, Ports, load
from mlmesh.envoy_binary import find_envoy
from mlmesh.ports import pick_free
from mlmesh.render.envoy import DESCRIPTOR_SET, Placement, render_ingress
from mlmesh.render.methods import descriptor_set_path, read_methods
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as pb
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as pb_grpc

ATTEMPTS = 3
MAX_REQUESTS = 2


class Upstream(BaseHTTPRequestHandler):
    """Answers as its path says; counts how often it was asked."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[f"{self.command} {self.path}"] += 1
        if self.path.startswith("/handler/slow"):
            time.sleep(1.5)
        if self.path.startswith("/handler/breaks") and self.asked[f"{self.command} {self.path}"] < ATTEMPTS:
            self.close_connection = True  # hangs up without an answer
            return
        if self.path.startswith("/handler/trickle"):
            self.send_response(200)
            self.send_header("content-length", "3")
            self.end_headers()
            for _ in range(3):
                time.sleep(0.5)
                self.wfile.write(b"x")
            return
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Says nothing when Envoy has hung up: that is what the tests are about."""


class Store(pb_grpc.MetadataStoreServiceServicer):
    """Is not available the first times it is asked."""

    asked: ClassVar[Counter[str]] = Counter()

    def _sometimes(self, method: str, context: grpc.ServicerContext) -> None:
        self.asked[method] += 1
        if self.asked[method] < ATTEMPTS:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    def GetArtifacts(self, request: Any, context: Any) -> Any:
        self._sometimes("GetArtifacts", context)
        return pb.GetArtifactsResponse()

    def PutArtifacts(self, request: Any, context: Any) -> Any:
        self._sometimes("PutArtifacts", context)
        return pb.PutArtifactsResponse()

    def GetEventsByArtifactIDs(self, request: Any, context: Any) -> Any:
        self.asked["deadline"] = int(context.time_remaining() or 0)
        time.sleep(1.5)
        return pb.GetEventsByArtifactIDsResponse()


def described() -> Mesh:
    """The mesh's own description, with one service and short limits."""
    content = load().model_dump(mode="json")
    name = "upstream"
    content["services"] = {
        name: {
            "module": "upstream",
            "ports": {"grpc": 1, "http": 2},
            "grpc": ["ml_metadata.MetadataStoreService"],
            "http": [{"path": "/handler/trickle", "streaming": True}, {"prefix": "/handler"}],
            "callers": ["ingress"],
            "deadline_seconds": 1,
            "circuit_breaker": {
                "max_connections": MAX_REQUESTS,
                "max_pending_requests": 1,
                "max_requests": MAX_REQUESTS,
                "max_retries": 3,
            },
        }
    }
    content["defaults"]["retries"] = {"attempts": ATTEMPTS, "backoff_seconds": 0.02, "max_backoff_seconds": 0.05}
    return Mesh.model_validate(content)


@pytest.fixture(scope="module")
def ingress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Envoy alone, before a service of the test's own; gives its URL."""
    folder = tmp_path_factory.mktemp("envoy") / "run"
    folder.mkdir()
    (folder.parent / "logs").mkdir()
    upstream = Server(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    server = grpc.server(ThreadPoolExecutor(8))
    pb_grpc.add_MetadataStoreServiceServicer_to_server(Store(), server)
    status = health.HealthServicer()
    status.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    ports = Ports(grpc=server.add_insecure_port("127.0.0.1:0"), http=upstream.server_port)
    server.start()
    (port,) = pick_free(1)
    bootstrap = render_ingress(described(), read_methods(), Placement(port, {"upstream": ports}))
    (folder / "envoy.yaml").write_text(yaml.safe_dump(bootstrap, sort_keys=False))
    shutil.copyfile(descriptor_set_path(), folder / DESCRIPTOR_SET)
    command = [str(find_envoy()), "-c", "envoy.yaml", "--log-level", "warning", "--concurrency", "1"]
    process = subprocess.Popen([*command, "--use-dynamic-base-id", "--disable-hot-restart"], cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while not answers(f"{url}/healthz"):
            assert process.poll() is None and time.monotonic() < deadline, process.returncode
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()
        upstream.shutdown()
        server.stop(None)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def store(ingress: str) -> Iterator[pb_grpc.MetadataStoreServiceStub]:
    Store.asked.clear()
    with grpc.insecure_channel(ingress.removeprefix("http://")) as channel:
        yield pb_grpc.MetadataStoreServiceStub(channel)


def test_a_deadline_ends_a_slow_request(ingress: str) -> None:
    began = time.monotonic()
    answer = httpx.get(f"{ingress}/handler/slow/deadline", timeout=30)
    assert answer.status_code == 504 and answer.json()["code"] == 4, answer.text
    assert 0.9 < time.monotonic() - began < 1.45


def test_a_stream_has_no_deadline(ingress: str) -> None:
    answer = httpx.get(f"{ingress}/handler/trickle", timeout=30)
    assert answer.status_code == 200 and answer.text == "xxx"


def test_a_deadline_ends_a_slow_rpc(store: pb_grpc.MetadataStoreServiceStub) -> None:
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        store.GetEventsByArtifactIDs(pb.GetEventsByArtifactIDsRequest(), timeout=30)
    assert caught.value.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}, caught.value
    assert time.monotonic() - began < 1.45


def test_what_may_be_sent_twice_is_sent_again(ingress: str) -> None:
    path = "/handler/breaks/get"
    assert httpx.get(ingress + path, timeout=30).text == "ok"
    assert Upstream.asked[f"GET {path}"] == ATTEMPTS


def test_what_may_not_be_sent_twice_is_not(ingress: str) -> None:
    path = "/handler/breaks/post"
    answer = httpx.post(ingress + path, content=b"x", timeout=30)
    assert answer.status_code == 503 and answer.json()["code"] == 14, answer.text
    assert Upstream.asked[f"POST {path}"] == 1


def test_rpcs_that_only_read_are_sent_again(store: pb_grpc.MetadataStoreServiceStub) -> None:
    store.GetArtifacts(pb.GetArtifactsRequest(), timeout=30)
    assert Store.asked["GetArtifacts"] == ATTEMPTS


def test_rpcs_that_write_are_not(store: pb_grpc.MetadataStoreServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        store.PutArtifacts(pb.PutArtifactsRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE and "not now" in caught.value.details()
    assert Store.asked["PutArtifacts"] == 1


def test_a_full_circuit_refuses_at_once(ingress: str) -> None:
    def ask(number: int) -> tuple[int, float]:
        began = time.monotonic()
        answer = httpx.get(f"{ingress}/handler/slow/full{number}", timeout=30)
        if answer.status_code == 503:
            assert answer.json()["code"] == 14, answer.text
        return answer.status_code, time.monotonic() - began

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(ask, range(10)))
    refused = [seconds for status, seconds in found if status == 503]
    # Two connections and one that waits for one of them; the rest is turned away without waiting.
    assert len(refused) == 10 - MAX_REQUESTS - 1, found
    assert max(refused) < 0.9, found
    assert httpx.get(f"{ingress}/handler/after", timeout=30).status_code == 200
