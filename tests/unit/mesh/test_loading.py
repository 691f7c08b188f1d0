"""Load tests: what is counted, and what a server that fails looks like."""

import base64
import http.server
import itertools
import json
import math
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlmesh.documents import DocumentError
from mlmesh.loading.latencies import Latencies
from mlmesh.loading.plan import Plan
from mlmesh.loading.request import grpc_body
from mlmesh.loading.run import run
from mlmesh_protos.inference import grpc_service_pb2 as pb

SECONDS = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200)


@given(SECONDS, SECONDS, st.floats(0, 100))
def test_percentiles_are_within_one_percent(ones: list[float], others: list[float], percent: float) -> None:
    first, second = Latencies(), Latencies()
    for value in ones:
        first.add(value)
    for value in others:
        second.add(value)
    first.merge(Latencies(second.classes))
    every = sorted(ones + others)
    exact = every[max(1, math.ceil(len(every) * percent / 100)) - 1]
    assert exact * (1 - 1e-9) <= first.percentile(percent) <= exact * 1.0101
    assert first.count == len(every) and math.isnan(Latencies().percentile(50))


class Answers(http.server.BaseHTTPRequestHandler):
    """Every third request is refused, every seventh cut off."""

    protocol_version = "HTTP/1.1"
    seen = itertools.count(1)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        number = next(self.seen)
        if number % 7 == 0:
            self.close_connection = True
            return
        self.send_response(429 if number % 3 == 0 else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def plan(url: str, **changes: object) -> Plan:
    body = base64.b64encode(b'{"inputs": []}').decode()
    given = {
        "url": url, "path": "/v2/models/m/infer", "body": body, "grpc": False, "clients": 3, "seconds": 1.0,
        "warm_up_seconds": 0.0, "rate": 0.0, "first": 0.0, "timeout_seconds": 5.0, **changes,
    }  # fmt: skip
    return Plan(**given)  # type: ignore[arg-type]


def test_refusals_and_lost_connections_are_counted_and_not_timed(server: str) -> None:
    *_, found = run(plan(server), processes=2)
    assert found.outcomes.keys() == {"OK", "HTTP 429", "no connection"}
    assert found.latencies.count == found.answers > 0 and found.errors > 0
    assert sum(found.rates) > 0 and found.seconds >= 1


def test_a_rate_is_kept_whatever_the_clients_could_do(server: str) -> None:
    *_, found = run(plan(server, rate=40.0, clients=4, seconds=1.5), processes=2)
    assert 50 <= found.outcomes.total() <= 60


def test_nobody_answers() -> None:
    *_, found = run(plan("http://127.0.0.1:9", seconds=0.5), processes=1)
    assert (
        found.answers == 0 and found.outcomes.keys() == {"no connection"} and math.isnan(found.latencies.percentile(9))
    )


def test_a_request_by_grpc() -> None:
    rows = {"name": "x", "datatype": "FP64", "shape": [2, 2], "data": [[1, 2.5], [3, 4]]}
    words = {"name": "w", "datatype": "BYTES", "shape": [1], "data": ["é"]}
    made = pb.ModelInferRequest.FromString(grpc_body({"inputs": [rows, words]}, "m"))
    assert made.model_name == "m" and list(made.inputs[0].contents.fp64_contents) == [1, 2.5, 3, 4]
    assert list(made.inputs[0].shape) == [2, 2] and made.inputs[1].contents.bytes_contents[0] == "é".encode()
    for wrong in ({**rows, "datatype": "FP16"}, {**rows, "data": ["a"]}, {**rows, "shape": "x"}):
        with pytest.raises(DocumentError, match=r"inputs\[0\]"):
            grpc_body(json.loads(json.dumps({"inputs": [wrong]})), "m")
