"""Clients of grpcio, sync and aio, at our HTTP/2 server: raw methods, and what is relayed to grpc.aio."""

import asyncio
import os
import queue
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from mlmesh_kit.testing import ServiceProcess
from mlmesh_protos.mlmesh.profile.v1.access_pb2 import ReviewAccessRequest

SERVICE = "mlmesh.echo.v1.EchoService"
FLOOD_BYTES = 1 << 16
LARGE = 32 << 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def process(folder: Path, **settings: str) -> ServiceProcess:
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    return ServiceProcess("kit_echo_service", "MLMESH_ECHO_", folder, {"RAW": "true", **settings}, env)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with process(tmp_path_factory.mktemp("echo")) as running:
        yield running


@pytest.fixture(scope="module")
def channel(service: ServiceProcess) -> Iterator[Any]:
    with grpc.insecure_channel(service.grpc, options=UNLIMITED) as opened:
        yield opened


def rpc(channel: Any, method: str, kind: str = "unary_unary") -> Any:
    path = f"/{SERVICE}/{method}"
    return getattr(channel, kind)(path, ReviewAccessRequest.SerializeToString, StringValue.FromString)


def ask(verb: str, name: str = "") -> ReviewAccessRequest:
    return ReviewAccessRequest(verb=verb, name=name)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("method", ["DoAsync", "Chat"])
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("size", [10, 100_000, 4 << 20])
def test_compressed_messages(channel: Any, method: str, compression: Any, size: int) -> None:
    name = "n" * size
    if method == "Chat":
        answers = rpc(channel, "Chat", "stream_stream")(iter([ask("say", name)]), compression=compression, timeout=30)
        assert [answer.value == f"say:{name}" for answer in answers] == [True]
    else:
        answer = rpc(channel, method)(ask("say", name), compression=compression, timeout=30)
        assert answer.value == f"say:{name}"


@pytest.mark.parametrize(("verb", "name", "size"), [("big", str(LARGE), LARGE), ("say", "n" * LARGE, LARGE + 4)])
def test_large_messages_both_ways(channel: Any, verb: str, name: str, size: int) -> None:
    assert len(rpc(channel, "DoAsync")(ask(verb, name), timeout=30).value) == size


def test_small_calls_pass_large_ones(service: ServiceProcess, channel: Any) -> None:
    """On one connection: a large answer is under way while small calls are answered."""
    large = [rpc(channel, "Do").future(ask("big", str(LARGE)), timeout=30) for _ in range(2)]
    small = [rpc(channel, "Do")(ask("a", str(n)), timeout=30).value for n in range(20)]
    assert small == [f"a:{n}" for n in range(20)]
    assert [len(one.result().value) for one in large] == [LARGE, LARGE]


def test_deadlines(service: ServiceProcess, channel: Any) -> None:
    cancelled = service.data_dir / "echo" / "slow.cancelled"
    cancelled.unlink(missing_ok=True)
    with pytest.raises(grpc.RpcError) as caught:
        rpc(channel, "DoAsync")(ask("slow", "20"), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(cancelled.exists)


@pytest.mark.parametrize("kind", ["unary", "relayed"])
def test_cancellation(service: ServiceProcess, channel: Any, kind: str) -> None:
    marks = service.data_dir / "echo"
    for name in ("slow.began", "slow.cancelled", "flood"):
        (marks / name).unlink(missing_ok=True)
    if kind == "unary":
        call = rpc(channel, "DoAsync").future(ask("slow", "20"))
        until((marks / "slow.began").exists)
        call.cancel()
        until((marks / "slow.cancelled").exists)
    else:
        call = rpc(channel, "Stream", "unary_stream")(ask("flood", "1000000"))
        next(call)
        call.cancel()
        _stalls(marks / "flood")
    assert call.code() is grpc.StatusCode.CANCELLED


def _stalls(path: Path) -> int:
    """Waits until a counter does not move any more; gives it."""
    last, since = "", time.monotonic()
    while time.monotonic() - since < 0.3:
        found = path.read_text()
        if found != last:
            last, since = found, time.monotonic()
        assert int(found or "0") < 2000, "it goes on and on"
        time.sleep(0.02)
    return int(last)


def test_a_slow_reader_holds_up_the_sender_and_loses_nothing(service: ServiceProcess) -> None:
    """Bytes that the client does not take are not asked of the handler, however many there are."""
    mark = service.data_dir / "echo" / "flood"
    mark.unlink(missing_ok=True)
    with grpc.insecure_channel(service.grpc, options=[("grpc.http2.bdp_probe", 0)]) as channel:
        answers = rpc(channel, "Stream", "unary_stream")(ask("flood", "500"))
        assert len(next(answers).value) == FLOOD_BYTES
        assert _stalls(mark) < 30
        assert sum(len(answer.value) for answer in answers) == 499 * FLOOD_BYTES


def test_metadata(channel: Any) -> None:
    sent = (("x-text", "a b"), ("x-blob-bin", bytes(range(256))), ("x-text", "again"))
    call = channel.unary_unary(f"/{SERVICE}/Do", ReviewAccessRequest.SerializeToString)
    got = call(ask("metadata"), metadata=sent, timeout=5).decode()
    assert got.startswith(repr(list(sent))[:-1])
    assert "mlmesh-took" in dict(call.with_call(ask("metadata"), timeout=5)[1].trailing_metadata())


def test_details_of_errors(channel: Any) -> None:
    for method in ("Do", "DoAsync"):
        with pytest.raises(grpc.RpcError) as caught:
            rpc(channel, method)(ask("missing", "größe %"), timeout=5)
        assert caught.value.details() == "thing 'größe %' not found"
        info = error_details_pb2.ResourceInfo()
        assert rpc_status.from_call(caught.value).details[0].Unpack(info)
        assert info.resource_name == "größe %"


def test_keepalive_pings_do_no_harm(service: ServiceProcess) -> None:
    options = [
        ("grpc.keepalive_time_ms", 10),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with grpc.insecure_channel(service.grpc, options=options) as channel:
        assert rpc(channel, "DoAsync")(ask("slow", "0.7"), timeout=10).value == "slow:0.7"
        assert rpc(channel, "DoAsync")(ask("a", "b"), timeout=10).value == "a:b"


def test_health_and_reflection_are_relayed(channel: Any) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    names, file = stub.ServerReflectionInfo(iter(requests), timeout=10)
    found = {one.name for one in names.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= found
    assert file.file_descriptor_response.file_descriptor_proto


def test_aio_clients_at_once_on_one_connection(service: ServiceProcess) -> None:
    """Unary calls, conversations and streams, all mixed."""

    async def talk(channel: Any, number: int) -> None:
        conversation = rpc(channel, "Chat", "stream_stream")(timeout=30)
        for word in range(10):
            await conversation.write(ask(f"v{number}", f"{word}" * (1 + 1000 * (word % 3))))
            answer = await conversation.read()
            assert answer.value.startswith(f"v{number}:{word}")
        await conversation.done_writing()
        assert await conversation.read() is grpc.aio.EOF

    async def many() -> None:
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            do = rpc(channel, "DoAsync")

            async def call(number: int) -> None:
                assert (await do(ask("n", str(number)), timeout=30)).value == f"n:{number}"

            async def collect(number: int) -> None:
                async def requests() -> AsyncIterator[ReviewAccessRequest]:
                    for one in range(number):
                        yield ask("", str(one))

                answer = await rpc(channel, "Collect", "stream_unary")(requests(), timeout=30)
                assert answer.value == ",".join(str(one) for one in range(number))

            await asyncio.gather(
                *(call(number) for number in range(900)),
                *(talk(channel, number) for number in range(30)),
                *(collect(number) for number in range(30)),
            )

    asyncio.run(many())


def test_more_calls_than_streams(tmp_path: Path) -> None:
    """A connection takes 1024 streams: a client's further calls wait for one, and a fifth of them is given up."""

    async def calls(address: str) -> list[bool]:
        async with grpc.aio.insecure_channel(address) as channel:
            do = rpc(channel, "DoAsync")

            async def one(number: int) -> bool:
                call = do(ask("slow" if number % 5 == 0 else "n", "0.2"), timeout=30)
                if number % 10 == 0:
                    await asyncio.sleep(0.1)
                    return bool(call.cancel())
                return (await call).value.endswith(":0.2")

            return list(await asyncio.gather(*(one(number) for number in range(1300))))

    with process(tmp_path, MAX_CONCURRENT_RPCS="1300") as service:
        answers = asyncio.run(calls(service.grpc))
    assert len(answers) == 1300 and all(answers)


def test_no_call_is_lost_while_the_service_drains(tmp_path: Path) -> None:
    """Calls without a pause, then SIGTERM: each is answered, or was never begun with and is UNAVAILABLE."""
    with process(tmp_path) as service, ThreadPoolExecutor(8) as pool:
        begun = tmp_path / "echo" / "slow.began"

        def work(number: int) -> tuple[int, str]:
            done = 0
            with service.channel() as channel:
                do = rpc(channel, "DoAsync")
                while True:
                    try:
                        assert do(ask("count", str(done)), timeout=30).value == f"count:{done}"
                    except grpc.RpcError as error:
                        return done, error.code().name  # type: ignore[attr-defined]
                    done += 1

        with service.channel() as channel:
            slow = [rpc(channel, "DoAsync").future(ask("slow", "1.0"), timeout=30) for _ in range(50)]
            words: queue.Queue[ReviewAccessRequest | None] = queue.Queue()
            words.put(ask("a", "b"))
            talk = rpc(channel, "Chat", "stream_stream")(iter(words.get, None), timeout=30)
            busy = [pool.submit(work, number) for number in range(8)]
            assert next(talk).value == "a:b"
            until(lambda: begun.exists() and begun.stat().st_size == 50)
            os.kill(service.pid, signal.SIGTERM)
            assert [one.result().value for one in slow] == ["slow:1.0"] * 50
            words.put(ask("c", "d"))
            words.put(None)
            assert [answer.value for answer in talk] == ["c:d"]
        found = [one.result(timeout=20) for one in busy]
        assert service.stop() == 0
    assert {code for _, code in found} == {"UNAVAILABLE"}
    assert sum(done for done, _ in found) == int((tmp_path / "echo" / "counted").read_text()) > 0
