"""The raw client of HTTP/2, against grpc.aio, against servers that do as they please, and against none."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
import uvloop
from google.rpc import error_details_pb2, status_pb2
from mlmesh_kit.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Unimplemented,
    from_status,
    to_status,
)
from mlmesh_kit.http2 import frames
from mlmesh_kit.http2.client import RawClient
from mlmesh_kit.http2.frames import frame
from support.h2_server import H2Peer, H2Server
from support.wire import message

METHOD = "/Echo/Do"


def run(test: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), 20))  # type: ignore[arg-type]


class Stock:
    """A server on grpc.aio that does as the message says, and notes what it sees."""

    def __init__(self) -> None:
        self.metadata: list[tuple[str, Any]] = []
        self.remaining: float | None = None
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def do(self, data: bytes, context: Any) -> bytes:
        self.metadata = list(context.invocation_metadata())
        self.remaining = context.time_remaining()
        if data == b"wait":
            self.began.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if data == b"fail":
            error = InvalidArgument("50% of größe", field="inputs[0].shape")
            details = to_status(error).SerializeToString()
            await context.abort(error.code, error.message, (("grpc-status-details-bin", details),))
        return data

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[str]:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(self.do)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", {"Do": handler}),))
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)


@contextlib.asynccontextmanager
async def client_of(address: str, **options: Any) -> AsyncIterator[RawClient]:
    client = RawClient(address, **options)
    try:
        yield client
    finally:
        await client.close()


async def error_of(answer: Awaitable[bytes]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await answer
    return caught.value


def test_calls_to_a_stock_server() -> None:
    async def test() -> None:
        stock = Stock()
        async with stock.running() as address, client_of(address) as client:
            metadata = [("x-a", "1"), ("x-b-bin", b"\0\xff"), ("x-a", "2")]
            assert await client.call(METHOD, b"hello", metadata=metadata, timeout=5) == b"hello"
            assert [pair for pair in stock.metadata if pair[0].startswith("x-")] == metadata
            assert stock.remaining is not None and 3 < stock.remaining <= 5
            assert await client.call(METHOD, b"") == b""
            sizes = (16_000, 16_384, 65_535, 300_000, 32 << 20)
            bodies = [bytes([size % 251]) * size for size in sizes]
            answers = await asyncio.gather(*(client.call(METHOD, body) for body in bodies))
            assert answers == bodies
            many = await asyncio.gather(*(client.call(METHOD, b"%d" % n) for n in range(300)))
            assert many == [b"%d" % n for n in range(300)]

    run(test)


def test_errors_of_a_stock_server_arrive_whole() -> None:
    async def test() -> None:
        async with Stock().running() as address, client_of(address) as client:
            error = await error_of(client.call(METHOD, b"fail"))
            assert isinstance(error, InvalidArgument)
            assert error.message == "inputs[0].shape: 50% of größe"
            assert error.violations == [("inputs[0].shape", "50% of größe")]
            assert to_status(error) == to_status(InvalidArgument("50% of größe", field="inputs[0].shape"))
            unknown = await error_of(client.call("/Echo/Nope", b""))
            assert isinstance(unknown, Unimplemented)

    run(test)


def test_deadlines_and_cancellation_reach_the_server() -> None:
    async def test() -> None:
        stock = Stock()
        async with stock.running() as address, client_of(address) as client:
            late = client.call(METHOD, b"wait", timeout=0.2)
            assert isinstance(await error_of(late), DeadlineExceeded)
            await stock.cancelled.wait()
            stock.began.clear()
            stock.cancelled.clear()
            given_up = client.call(METHOD, b"wait")
            await stock.began.wait()
            given_up.cancel()
            await stock.cancelled.wait()
            assert await client.call(METHOD, b"next") == b"next"

    run(test)


def test_a_server_that_comes_and_goes() -> None:
    async def test() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        async with client_of(f"127.0.0.1:{port}") as client:
            for _ in range(2):  # the second finds that a connection was just refused
                error = await error_of(client.call(METHOD, b"x"))
                assert isinstance(error, Unavailable) and f"127.0.0.1:{port} cannot be reached" in error.message
            for _ in range(2):
                stock = Stock()
                async with stock.running(port):
                    await _until_answered(client)
                    waiting = client.call(METHOD, b"wait")
                    await stock.began.wait()
                assert isinstance(await error_of(waiting), Unavailable)

    run(test)


async def _until_answered(client: RawClient) -> None:
    while True:
        with contextlib.suppress(Unavailable):
            assert await client.call(METHOD, b"there?") == b"there?"
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["goaway", "refused"])
def test_what_the_server_has_not_begun_is_sent_again(how: str) -> None:
    seen: list[bytes] = []

    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        seen.append(body)
        if body == message(b"always") or len(seen) == 1:
            if how == "goaway":
                peer.h2.close_connection(last_stream_id=stream - 2 if stream > 2 else 0)
                peer.flush()
                peer.transport.close()
            else:
                peer.h2.reset_stream(stream, 7)
        else:
            peer.answer(stream, body)

    async def test() -> None:
        async with H2Server(script) as server, client_of(server.address) as client:
            assert await client.call(METHOD, b"once") == b"once"
            assert seen == [message(b"once")] * 2
            error = await error_of(client.call(METHOD, b"always"))
            assert isinstance(error, Unavailable)
            assert seen[2:] == [message(b"always")] * 2

    run(test)


def _reset(code: int) -> Callable[[H2Peer, int, bytes], None]:
    return lambda peer, stream, body: peer.h2.reset_stream(stream, code)


def _answer(*body: bytes, **more: Any) -> Callable[[H2Peer, int, bytes], None]:
    return lambda peer, stream, _: peer.answer(stream, b"".join(body), **more)


HTML = [("content-type", "text/html")]
OK = [(":status", "200"), ("content-type", "application/grpc")]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (_reset(8), "CANCELLED"),
        (_reset(11), "RESOURCE_EXHAUSTED"),
        (_reset(2), "INTERNAL"),
        (_reset(999), "INTERNAL"),
        (lambda peer, stream, body: peer.transport.abort(), "UNAVAILABLE"),
        (lambda peer, stream, body: peer.transport.write(frame(frames.PING, 0, 0, b"1234567")), "UNAVAILABLE"),
        (_answer(b"<html>", head=[(":status", "503"), *HTML], end=[]), "UNAVAILABLE"),
        (_answer(head=[(":status", "404"), *HTML], end=[]), "UNIMPLEMENTED"),
        (_answer(b"<html>", head=[(":status", "200"), *HTML], end=[]), "UNKNOWN"),
        (_answer(message(b"x"), end=[]), "INTERNAL"),
        (_answer(message(b"x"), end=[("x", "y")]), "UNKNOWN"),
        (_answer(message(b"x"), end=[("grpc-status", "-1")]), "UNKNOWN"),
        (_answer(message(b"x"), end=[("grpc-status", "99")]), "UNKNOWN"),
        (_answer(message(b"x"), end=[("grpc-status", "8"), ("grpc-message", "%zz%41%ff")]), "RESOURCE_EXHAUSTED"),
        (_answer(end=[("grpc-status", "5"), ("grpc-status-details-bin", "AAAA")]), "NOT_FOUND"),
        (_answer(), "INTERNAL"),  # no message
        (_answer(message(b"x"), message(b"y")), "INTERNAL"),
        (_answer(message(b"x")[:-1]), "INTERNAL"),
        (_answer(message(b"x", 1)), "INTERNAL"),  # compressed
        (_answer(message(b"x" * 1001)), "RESOURCE_EXHAUSTED"),
    ],
)
def test_answers_that_are_none(script: Any, code: str) -> None:
    async def test() -> None:
        async with H2Server(script) as server, client_of(server.address, message_bytes=1000) as client:
            error = await error_of(client.call(METHOD, b"x", timeout=5))
            assert error.code.name == code

    run(test)


def test_an_informational_answer_comes_before_the_real_one() -> None:
    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        peer.h2.send_headers(stream, [(":status", "103")])
        peer.answer(stream, body)

    async def test() -> None:
        async with H2Server(script) as server, client_of(server.address) as client:
            assert await client.call(METHOD, b"x") == b"x"

    run(test)


def test_calls_wait_for_a_stream_and_no_longer_than_they_may() -> None:
    """One connection, two streams on it; the others wait for their turn."""
    asked: list[tuple[H2Peer, int, bytes]] = []
    most = 0

    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        nonlocal most
        asked.append((peer, stream, body))
        most = max(most, len(asked))

    async def test() -> None:
        async with H2Server(script, {3: 2}) as server, client_of(server.address, connections=1, waiting=5) as client:
            first = [client.call(METHOD, b"%d" % n) for n in range(4)]
            late = client.call(METHOD, b"late", timeout=0.05)
            assert isinstance(await error_of(late), DeadlineExceeded)
            assert isinstance(await error_of(client.call(METHOD, b"5", timeout=0.01)), DeadlineExceeded)
            more = [client.call(METHOD, b"%d" % n) for n in range(6, 9)]
            assert isinstance(await error_of(client.call(METHOD, b"too many")), ResourceExhausted)
            more[0].cancel()
            while not all(answer.done() for answer in (*first, *more)):
                while asked:
                    peer, stream, body = asked.pop(0)
                    peer.answer(stream, body)
                await asyncio.sleep(0)
            assert [answer.result() for answer in (*first, *more[1:])] == [b"0", b"1", b"2", b"3", b"7", b"8"]
            assert most == 2 and len(server.peers) == 1

    run(test)


def test_full_connections_are_joined_by_others() -> None:
    asked: list[tuple[H2Peer, int, bytes]] = []
    three = asyncio.Event()

    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        asked.append((peer, stream, body))
        if len(asked) == 3:
            three.set()

    async def test() -> None:
        async with H2Server(script, {3: 1}) as server, client_of(server.address, connections=3) as client:
            answers = [client.call(METHOD, b"%d" % n) for n in range(5)]
            await three.wait()
            assert len({peer for peer, _, _ in asked}) == 3
            while not all(answer.done() for answer in answers):
                while asked:
                    peer, stream, body = asked.pop(0)
                    peer.answer(stream, body)
                await asyncio.sleep(0)
            assert [answer.result() for answer in answers] == [b"%d" % n for n in range(5)]
            assert len(server.peers) == 3

    run(test)


def test_answers_take_turns_in_memory() -> None:
    """More than may be gathered at a time: every one arrives."""

    async def test() -> None:
        async with Stock().running() as address, client_of(address, message_bytes=1 << 20) as client:
            bodies = [bytes([n]) * (1 << 20) for n in range(12)]
            assert await asyncio.gather(*(client.call(METHOD, body) for body in bodies)) == bodies
            assert client.reservations._room == 2 << 20 and not client.reservations._held

    run(test)


def test_a_server_of_something_else() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def test() -> None:
        server = await asyncio.start_server(other, "127.0.0.1", 0)
        async with server, client_of(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
            error = await error_of(client.call(METHOD, b"x"))
            assert isinstance(error, Unavailable) and "does not speak HTTP/2" in error.message

    run(test)


def test_closing_ends_what_is_in_flight_and_what_comes() -> None:
    async def test() -> None:
        stock = Stock()
        async with stock.running() as address:
            client = RawClient(address)
            waiting = client.call(METHOD, b"wait")
            await stock.began.wait()
            await client.close()
            assert isinstance(await error_of(waiting), Unavailable)
            assert isinstance(await error_of(client.call(METHOD, b"x")), Unavailable)
            await stock.cancelled.wait()

    run(test)


@pytest.mark.parametrize(
    "metadata",
    [
        [("Upper", "1")],
        [("", "1")],
        [("grpc-timeout", "1S")],
        [("te", "trailers")],
        [("a b", "1")],
        [("x", "a\r\nevil: 1")],
        [("x", "ä")],
        [("x-bin", "text")],
        [("x", b"bytes")],
        [(":path", "/")],
    ],
)
def test_metadata_that_cannot_be_sent(metadata: Any) -> None:
    async def test() -> None:
        async with client_of("127.0.0.1:1") as client:
            with pytest.raises(InvalidArgument):
                client.call(METHOD, b"", metadata=metadata)

    run(test)


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:0", "host:65536", "host:8o", "hö:80"])
def test_addresses_that_are_none(address: str) -> None:
    async def test() -> None:
        with pytest.raises(InvalidArgument, match="host:port"):
            RawClient(address)

    run(test)


def test_from_status_is_the_inverse_of_to_status() -> None:
    for error in (
        NotFound("model", "m"),
        InvalidArgument.of([("a", "b"), ("c", "d")]),
        ResourceExhausted("full", retry_after_seconds=2.5),
        Unavailable("not now"),
        Internal("it broke"),
    ):
        again = from_status(to_status(error))
        assert type(again) is type(error) and to_status(again) == to_status(error)
        assert getattr(again, "retry_after_seconds", None) == getattr(error, "retry_after_seconds", None)
        assert getattr(again, "violations", None) == getattr(error, "violations", None)
    lost = from_status(status_pb2.Status(code=15, message="lost"))
    assert lost.code is grpc.StatusCode.DATA_LOSS
    broken = to_status(InvalidArgument("x", field="f"))
    broken.details[0].value = b"\xff\xff"
    found = from_status(broken)
    assert isinstance(found, InvalidArgument) and found.violations == []
    assert not error_details_pb2.BadRequest().field_violations
