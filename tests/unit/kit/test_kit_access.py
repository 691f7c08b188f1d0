"""The access check of a service that has a profile service: asked once, remembered for a moment, closed without it."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.mlmesh.profile.v1 import access_pb2, access_pb2_grpc

SERVICE = "mlmesh.echo.v1.EchoService"
ALICE, EVE = "alice@x.org", "eve@x.org"


class FakeProfile(access_pb2_grpc.AccessServiceServicer):
    """Allows Alice what is not revoked; counts."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, str]] = []
        self.revoked = False
        self.server: Any = None
        self.port = 0

    def ReviewAccess(self, request: Any, context: Any) -> Any:
        self.asked.append((request.user, request.verb, request.resource, request.namespace))
        users = [value for key, value in context.invocation_metadata() if key == "kubeflow-userid"]
        allowed = request.user == ALICE and not self.revoked and users == [ALICE]
        return access_pb2.ReviewAccessResponse(
            allowed=allowed, reason="" if allowed else "not theirs", namespace=request.namespace or "alices"
        )

    def start(self) -> None:
        self.server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        access_pb2_grpc.add_AccessServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def stop(self) -> None:
        self.server.stop(0).wait()


@pytest.fixture
def profile() -> Iterator[FakeProfile]:
    fake = FakeProfile()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def service(profile: FakeProfile, tmp_path: Path) -> Iterator[ServiceProcess]:
    settings = {"ACCESS_ADDRESS": f"127.0.0.1:{profile.port}", "ACCESS_CACHE_SECONDS": "0.5"}
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    with ServiceProcess("kit_echo_service", "MLMESH_ECHO_", tmp_path, settings, env) as running:
        yield running


@pytest.fixture
def channel(service: ServiceProcess) -> Iterator[Any]:
    with service.channel() as opened:
        yield opened


def ask(channel: Any, method: str, user: str, namespace: str = "", verb: str = "who") -> tuple[str, str]:
    """Gives the code, and the answer or the message."""
    rpc = channel.unary_unary(
        f"/{SERVICE}/{method}", access_pb2.ReviewAccessRequest.SerializeToString, StringValue.FromString
    )
    request = access_pb2.ReviewAccessRequest(verb=verb, namespace=namespace)
    try:
        return "OK", rpc(request, timeout=20, metadata=(("kubeflow-userid", user),)).value
    except grpc.RpcError as error:
        return error.code().name, error.details()


def test_the_question_is_the_table_s_and_the_answer_is_remembered(profile: FakeProfile, channel: Any) -> None:
    assert ask(channel, "Do", ALICE, "namespaces/team/things/t1") == ("OK", f"{ALICE}/default")
    assert profile.asked == [(ALICE, "update", "things", "team")]
    for _ in range(20):
        assert ask(channel, "Do", ALICE, "team")[0] == "OK"
    assert len(profile.asked) == 1
    assert ask(channel, "DoAsync", ALICE, "team")[0] == "OK"
    assert profile.asked[1:] == [(ALICE, "get", "things", "team")]


def test_an_empty_namespace_is_the_one_that_the_profile_service_names(channel: Any) -> None:
    assert ask(channel, "Do", ALICE) == ("OK", f"{ALICE}/alices")
    assert ask(channel, "DoInDomain", ALICE) == ("OK", "alices")


def test_a_refusal_says_why(channel: Any) -> None:
    code, message = ask(channel, "Do", EVE, "team")
    assert code == "PERMISSION_DENIED"
    assert message == f"{EVE} may not update things in namespace 'team': not theirs"
    assert ask(channel, "DoInDomain", EVE, "team")[0] == "PERMISSION_DENIED"
    assert ask(channel, "Do", "", "team")[0] == "UNAUTHENTICATED"


def test_a_revocation_holds_when_the_memory_ends(profile: FakeProfile, channel: Any) -> None:
    assert ask(channel, "Do", ALICE, "team")[0] == "OK"
    profile.revoked = True
    revoked_at = time.monotonic()
    while ask(channel, "Do", ALICE, "team")[0] == "OK":
        assert time.monotonic() - revoked_at < 5, "a revoked user still may"
        time.sleep(0.02)
    assert time.monotonic() - revoked_at < 2


def test_a_refusal_is_forgotten_sooner_than_a_permission(profile: FakeProfile, tmp_path: Path) -> None:
    settings = {"ACCESS_ADDRESS": f"127.0.0.1:{profile.port}", "ACCESS_CACHE_SECONDS": "60"}
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    service = ServiceProcess("kit_echo_service", "MLMESH_ECHO_", tmp_path, settings, env)
    with service, service.channel() as channel:
        profile.revoked = True
        for _ in range(20):
            assert ask(channel, "Do", ALICE, "team")[0] == "PERMISSION_DENIED"
        assert len(profile.asked) <= 5  # a flood of refusals is answered from memory
        profile.revoked = False
        given_at = time.monotonic()
        while ask(channel, "Do", ALICE, "team")[0] != "OK":
            assert time.monotonic() - given_at < 3, "a new role does not take hold"
            time.sleep(0.02)


def test_without_the_profile_service_it_is_closed_and_recovers_by_itself(profile: FakeProfile, channel: Any) -> None:
    assert ask(channel, "Do", ALICE, "team")[0] == "OK"
    profile.stop()
    deadline = time.monotonic() + 10
    while (answer := ask(channel, "Do", ALICE, "team"))[0] == "OK":  # remembered for a moment
        assert time.monotonic() < deadline
    assert answer[0] == "UNAVAILABLE"
    assert "access check" in answer[1]
    assert ask(channel, "DoInDomain", ALICE, "team")[0] == "UNAVAILABLE"
    assert ask(channel, "Open", ALICE)[0] == "OK"  # PUBLIC asks nobody
    profile.start()
    while ask(channel, "Do", ALICE, "team")[0] != "OK":
        assert time.monotonic() < deadline + 10, "it did not recover"


def test_a_profile_service_that_never_was_is_no_open_door(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    settings = {"ACCESS_ADDRESS": f"127.0.0.1:{port}"}
    service = ServiceProcess("kit_echo_service", "MLMESH_ECHO_", tmp_path, settings, env)
    with service, service.channel() as channel:
        started = time.monotonic()
        assert ask(channel, "Do", ALICE, "team")[0] == "UNAVAILABLE"
        assert time.monotonic() - started < 5
        answer = httpx.get(f"{service.http}/do/who", headers={"kubeflow-userid": ALICE})
        assert (answer.status_code, answer.json()["code"]) == (503, 14)


def test_handlers_in_all_threads_may_ask_at_once(profile: FakeProfile, channel: Any) -> None:
    """require() waits in a thread for the loop; with every thread waiting, the loop must still answer."""
    barrier = threading.Barrier(32)

    def one(number: int) -> str:
        barrier.wait()
        return ask(channel, "DoInDomain", ALICE, f"n{number}")[1]

    with ThreadPoolExecutor(32) as pool:
        assert sorted(pool.map(one, range(32))) == sorted(f"n{number}" for number in range(32))


def test_http_asks_the_same(profile: FakeProfile, service: ServiceProcess) -> None:
    answer = httpx.get(f"{service.http}/do/who?namespace=team", headers={"kubeflow-userid": ALICE})
    assert answer.json() == {"answer": f"{ALICE}/default"}
    assert profile.asked == [(ALICE, "get", "things", "team")]
    refused = httpx.get(f"{service.http}/do/who?namespace=team", headers={"kubeflow-userid": EVE})
    assert refused.status_code == 403
