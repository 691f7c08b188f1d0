"""What surrounds every RPC and every HTTP request, seen from outside of a real process."""

import gzip
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.mlmesh.profile.v1.access_pb2 import ReviewAccessRequest

SERVICE = "mlmesh.echo.v1.EchoService"
SECRET = "the-password-is-hunter2"
LOCAL = "user@mlmesh.local"
FORGED = ((LOCAL, "eve@x.org"), ("eve@x.org", LOCAL), (LOCAL, LOCAL), ("", LOCAL))
KINDS = {"Stream": "unary_stream", "Chat": "stream_stream", "Collect": "stream_unary"}


def _process(folder: Path, settings: dict[str, str] | None = None) -> ServiceProcess:
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    return ServiceProcess("kit_echo_service", "MLMESH_ECHO_", folder, settings, env)


@pytest.fixture(scope="module", params=["grpc.aio", "raw"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """Served by grpc.aio alone; and with raw methods, by our own HTTP/2 server in front of it."""
    settings = {"MAX_MESSAGE_BYTES": "100000", "MAX_WORKRES": "7", "RAW": str(request.param == "raw")}
    with _process(tmp_path_factory.mktemp("echo"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def channel(service: ServiceProcess) -> Iterator[Any]:
    with grpc.insecure_channel(service.grpc, options=[("grpc.max_receive_message_length", -1)]) as opened:
        yield opened


def call(
    channel: Any,
    method: str,
    verb: str = "",
    name: str = "",
    *,
    user: str | tuple[str, ...] | None = None,
    namespace: str = "",
) -> Any:
    make = getattr(channel, KINDS.get(method, "unary_unary"))
    rpc = make(f"/{SERVICE}/{method}", ReviewAccessRequest.SerializeToString, StringValue.FromString)
    request: Any = ReviewAccessRequest(verb=verb, name=name, namespace=namespace)
    if method in {"Chat", "Collect"}:
        request = iter([request])
    users = (user,) if isinstance(user, str) else user or ()
    metadata = tuple(("kubeflow-userid", one) for one in users)
    answer = rpc(request, timeout=20, metadata=metadata)
    return [one.value for one in answer] if method in {"Stream", "Chat"} else answer.value


def failure(channel: Any, method: str, verb: str = "", name: str = "", **more: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, verb, name, **more)
    return caught.value


@pytest.mark.parametrize("method", ["Do", "DoAsync", "Stream", "Chat"])
def test_errors_keep_their_code_message_and_details(channel: Any, method: str) -> None:
    error = failure(channel, method, "invalid")
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "spec.a: must be a number; spec.b: is missing"
    bad = error_details_pb2.BadRequest()
    assert rpc_status.from_call(error).details[0].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("spec.a", "must be a number"),
        ("spec.b", "is missing"),
    ]


def test_not_found_and_exhausted_say_what_and_when(channel: Any) -> None:
    missing = failure(channel, "Do", "missing", "t1")
    info = error_details_pb2.ResourceInfo()
    assert rpc_status.from_call(missing).details[0].Unpack(info)
    assert (missing.code(), info.resource_type, info.resource_name) == (grpc.StatusCode.NOT_FOUND, "thing", "t1")
    wait = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(failure(channel, "Do", "exhausted")).details[0].Unpack(wait)
    assert wait.retry_delay.ToMilliseconds() == 2500


@pytest.mark.parametrize("method", ["Do", "DoAsync", "Stream", "Chat"])
def test_an_unexpected_exception_says_nothing_and_is_logged(service: ServiceProcess, channel: Any, method: str) -> None:
    error = failure(channel, method, "crash")
    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details().startswith("internal error")
    assert SECRET not in str(error) + str(error.trailing_metadata())
    assert "RuntimeError" in service.log_path.read_text()


@pytest.mark.parametrize(("method", "verb"), [("Do", "unserved"), ("DoAsync", "unserved")])
def test_what_is_not_served_says_so(channel: Any, method: str, verb: str) -> None:
    assert failure(channel, method, verb).code() == grpc.StatusCode.UNIMPLEMENTED


def test_an_unknown_method_is_unimplemented(channel: Any) -> None:
    rpc = channel.unary_unary(f"/{SERVICE}/Nope")
    with pytest.raises(grpc.RpcError) as caught:
        rpc(b"", timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_bytes_that_are_no_message_are_refused(channel: Any, kind: str) -> None:
    rpc = getattr(channel, kind)(f"/{SERVICE}/{'Do' if kind == 'unary_unary' else 'Stream'}")
    with pytest.raises(grpc.RpcError) as caught:
        answer = rpc(b"\xff\xff\xff\xff", timeout=5)
        list(answer)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("character", ["x", "%", "é", "€", "\n", "\N{GRINNING FACE}"])
def test_an_endless_message_of_an_error_is_cut(channel: Any, character: str) -> None:
    error = failure(channel, "Do", "precondition", character)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert 0 < len(error.details()) <= 4096
    for _ in range(10):  # clients drop by chance what is a little too long
        assert failure(channel, "Do", "violations", character * 2).code() == grpc.StatusCode.INVALID_ARGUMENT


def test_messages_have_a_size_limit_both_ways(channel: Any) -> None:
    assert len(call(channel, "Do", "big", "90000")) == 90_000
    assert failure(channel, "Do", "x", "n" * 100_001).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure(channel, "Do", "big", "100001").code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_streams_answer_before_they_fail(channel: Any) -> None:
    assert call(channel, "Stream") == ["0", "1", "2"]
    rpc = channel.unary_stream(f"/{SERVICE}/Stream", ReviewAccessRequest.SerializeToString, StringValue.FromString)
    got = []
    with pytest.raises(grpc.RpcError) as caught:
        got.extend(rpc(ReviewAccessRequest(verb="missing"), timeout=5))  # extend keeps what came before the error
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["Do", "DoAsync"])
def test_the_caller_is_who_the_ingress_says_or_the_local_user(channel: Any, method: str) -> None:
    assert call(channel, method, "who") == "user@mlmesh.local/default"
    assert call(channel, method, "who", user="user@mlmesh.local") == "user@mlmesh.local/default"


@pytest.mark.parametrize("method", ["Do", "DoAsync", "DoInDomain", "Stream", "Chat", "Collect"])
def test_without_a_profile_service_only_the_local_user_may(channel: Any, method: str) -> None:
    assert failure(channel, method, user="eve@x.org").code() == grpc.StatusCode.PERMISSION_DENIED
    assert failure(channel, method, user="").code() == grpc.StatusCode.UNAUTHENTICATED
    assert call(channel, "Open", user="eve@x.org") == "open to eve@x.org"


def test_callers_do_not_mix(channel: Any) -> None:
    """Handlers in threads and on the loop, all at once, see their own caller."""

    def one(number: int) -> bool:
        user = "user@mlmesh.local" if number % 2 else f"eve{number}@x.org"
        return str(call(channel, "Open", user=user)) == f"open to {user}"

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(200)))


def test_slow_handlers_in_threads_do_not_hold_up_the_loop(channel: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(call, channel, "Do", "slow", "0.5") for _ in range(8)]
        started = time.monotonic()
        assert call(channel, "DoAsync", "hello", "you") == "hello:you"
        assert time.monotonic() - started < 0.4
        assert all(future.result() for future in slow)


def test_health_and_reflection(service: ServiceProcess, channel: Any) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert httpx.get(f"{service.http}/healthz").json() == {"status": "SERVING"}


@pytest.fixture(params=["do", "raw"])
def door(service: ServiceProcess, request: pytest.FixtureRequest) -> str:
    """The same endpoint twice: as a route of Starlette, and as a raw route."""
    return f"{service.http}/{request.param}"


@pytest.mark.parametrize(
    ("verb", "status", "code"), [("invalid", 400, 3), ("missing", 404, 5), ("exhausted", 429, 8), ("crash", 500, 13)]
)
def test_http_errors_are_google_s(door: str, verb: str, status: int, code: int) -> None:
    answer = httpx.post(f"{door}/{verb}", headers={"x-name": "t1"})
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert body["error"] == body["message"] != ""
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text
    if verb == "missing":
        assert (body["details"][0]["resource_type"], body["details"][0]["resource_name"]) == ("thing", "t1")
    if verb == "exhausted":
        assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize("path", ["", "/", "/a/b"])
def test_http_paths_that_there_are_not(door: str, path: str) -> None:
    answer = httpx.post(door + path)
    assert (answer.status_code, answer.json()["code"]) == (404, 5)
    assert answer.json()["message"].startswith("no such path: /")


@pytest.mark.parametrize("path", ["/%77ho", "/who?x=1", "/who"])
def test_http_is_guarded_like_grpc(door: str, path: str) -> None:
    url = door + path
    assert httpx.post(url).json() == {"answer": "user@mlmesh.local/default"}
    stranger = httpx.post(url, headers={"kubeflow-userid": "eve@x.org"})
    assert (stranger.status_code, stranger.json()["code"]) == (403, 7)
    nobody = httpx.post(url, headers={"KubeFlow-UserID": ""})
    assert (nobody.status_code, nobody.json()["code"]) == (401, 16)
    deleted = httpx.request("DELETE", url)
    assert (deleted.status_code, deleted.json()["code"]) == (405, 12)


def test_two_users_in_one_call_are_nobody(channel: Any) -> None:
    """One is the ingress's, the other forged; no order of the two lets anybody in."""
    for users in FORGED:
        assert failure(channel, "Do", "who", user=users).code() is grpc.StatusCode.UNAUTHENTICATED


def test_two_users_in_one_request_are_nobody(door: str) -> None:
    for users in FORGED:
        assert httpx.post(f"{door}/who", headers=[("kubeflow-userid", user) for user in users]).status_code == 401


def test_http_bodies_have_the_same_limit(door: str) -> None:
    url = f"{door}/size"
    assert httpx.post(url, content=b"x" * 100_000).json() == {"size": 100_000}
    assert httpx.post(url, content=(b"x" * 10_000 for _ in range(10))).json() == {"size": 100_000}
    for much in (b"x" * 100_001, (b"x" * 10_000 for _ in range(11))):  # with and without a length in front
        refused = httpx.post(url, content=much)
        assert (refused.status_code, refused.json()["code"]) == (413, 8)


def test_who_may_not_is_told_before_the_body_is_read(door: str) -> None:
    """A body that never ends, of somebody who may not: the answer does not wait for it."""
    host, port = urlsplit(door).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as plain:
        head = f"POST {urlsplit(door).path}/size HTTP/1.1\r\nHost: x\r\nkubeflow-userid: eve@x.org\r\n"
        plain.sendall(f"{head}Content-Length: 1000\r\n\r\nhalf".encode())
        assert plain.recv(1000).startswith(b"HTTP/1.1 403 ")


def test_raw_routes_give_bytes_of_any_kind(service: ServiceProcess) -> None:
    url = f"{service.http}/raw"
    answer = httpx.post(f"{url}/binary", content=bytes(range(256)))
    assert answer.content == bytes(range(255, -1, -1))
    assert (answer.headers["content-type"], answer.headers["x-kind"]) == ("application/octet-stream", "binary")
    assert httpx.post(f"{url}/later").json() == {}
    assert httpx.post(f"{url}/wrong").status_code == 500
    assert httpx.post(f"{url}/given-up").status_code == 503


def test_raw_routes_take_no_compressed_bodies(service: ServiceProcess) -> None:
    url = f"{service.http}/raw/size"
    refused = httpx.post(url, content=gzip.compress(b"x"), headers={"content-encoding": "gzip"})
    assert (refused.status_code, refused.json()["code"]) == (400, 3)
    assert "Content-Encoding" in refused.json()["message"]
    assert httpx.post(url, content=b"x", headers={"content-encoding": "identity"}).json() == {"size": 1}


def test_a_raw_request_whose_client_goes_away_is_cancelled(service: ServiceProcess) -> None:
    marks = next(path.parent for path in service.log_path.parent.rglob("entered"))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{service.http}/raw/slow", timeout=0.2)
    _until((marks / "raw.cancelled").exists)
    assert (marks / "raw.began").exists()
    _until(
        lambda: (
            'mlmesh_rpc_total{code="CANCELLED",method="POST /raw/{verb}"}' in httpx.get(f"{service.http}/metrics").text
        )
    )


@pytest.mark.parametrize("path", ["do", "raw"])
def test_http_requests_are_counted_and_traced(service: ServiceProcess, path: str) -> None:
    trace = "0af7651916cd43dd8448eb211c80319d"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    answer = httpx.post(f"{service.http}/{path}/crash", headers=headers)
    assert trace in answer.json()["message"]
    metrics = httpx.get(f"{service.http}/metrics").text
    assert f'mlmesh_rpc_total{{code="INTERNAL",method="POST /{path}/{{verb}}"}}' in metrics
    assert "mlmesh_rpc_in_flight 1.0" in metrics  # the one that asks


def test_what_happened_is_counted(service: ServiceProcess, channel: Any) -> None:
    failure(channel, "Do", "missing")
    metrics = httpx.get(f"{service.http}/metrics").text
    assert f'mlmesh_rpc_total{{code="NOT_FOUND",method="/{SERVICE}/Do"}}' in metrics
    assert "eve@x.org" not in metrics


def test_a_trace_goes_on(service: ServiceProcess, channel: Any) -> None:
    """The trace id that came in is the one that a client is told, and the one in the log."""
    rpc = channel.unary_unary(f"/{SERVICE}/Do", ReviewAccessRequest.SerializeToString, StringValue.FromString)
    trace = "0af7651916cd43dd8448eb211c80319c"
    with pytest.raises(grpc.RpcError, match=trace):
        rpc(ReviewAccessRequest(verb="crash"), metadata=(("traceparent", f"00-{trace}-b7ad6b7169203331-01"),))
    assert f'"trace_id": "{trace}"' in service.log_path.read_text()


@pytest.mark.parametrize("raw", [False, True])
def test_sigterm_lets_calls_end_and_then_leaves_the_lifespans(tmp_path: Path, raw: bool) -> None:
    with _process(tmp_path, {"RAW": str(raw)}) as service, service.channel() as channel, ThreadPoolExecutor(1) as pool:
        marks = tmp_path / "echo"
        assert (marks / "entered").exists()
        running = pool.submit(call, channel, "Do", "slow", "1.5")
        _until((marks / "slow.began").exists)
        os.kill(service.pid, signal.SIGTERM)
        assert running.result(timeout=10) == "slow:1.5"
        assert service.stop() == 0
        assert (marks / "left").read_text() == "after the call"
        with pytest.raises(grpc.RpcError):
            call(channel, "Open")


@pytest.mark.parametrize("raw", [False, True])
def test_a_call_longer_than_the_drain_does_not_hold_up_the_end(tmp_path: Path, raw: bool) -> None:
    process = _process(tmp_path, {"DRAIN_SECONDS": "0.3", "RAW": str(raw)})
    with process as service, service.channel() as channel, ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, channel, "DoAsync", "slow", "15")
        _until((tmp_path / "echo" / "slow.began").exists)
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 5
        assert running.exception(timeout=5) is not None


def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_service_with_a_gap_in_its_table_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="EchoService/Stream declares no access"):
        _process(tmp_path, {"FORGET_RULE": "Stream"}).start()


def test_a_taken_port_is_said_plainly(service: ServiceProcess, tmp_path: Path) -> None:
    taken = service.grpc.rsplit(":", 1)[1]
    with pytest.raises(RuntimeError, match=f"gRPC port {taken} on 127.0.0.1 is taken"):
        _process(tmp_path, {"GRPC_PORT": taken}).start()


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="MLMESH_ECHO_MAX_WORKERS: "):
        _process(tmp_path, {"MAX_WORKERS": "many"}).start()


def test_a_setting_that_there_is_not_is_warned_of(service: ServiceProcess) -> None:
    words = "MLMESH_ECHO_MAX_WORKRES: there is no such setting; did you mean MLMESH_ECHO_MAX_WORKERS?"
    assert words in service.log_path.read_text() and "MLMESH_ECHO_MAX_MESSAGE_BYTES" not in service.log_path.read_text()
