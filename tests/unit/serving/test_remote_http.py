"""The HTTP client for servers elsewhere: answers cut anywhere, connections used again or given up."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, ServiceError, Unavailable
from mlmesh_serving.remote.address import parse_address
from mlmesh_serving.remote.hosts import LOOPBACK, parse_hosts
from mlmesh_serving.remote.http_client import HttpClient
from mlmesh_serving.remote.http_connection import BrokenError, HttpConnection
from support.oip_servers import tcp_server

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Transport:
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        self.sent = b""
        self.aborted = False
        self.paused = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def exchange(pieces: list[bytes], *, limit: int = 1 << 20, closes: bool = False) -> tuple[int, bytes, bool]:
    """Gives status, body, and whether the connection can be used again, of an answer that comes in pieces."""

    async def run() -> tuple[int, bytes, bool]:
        connection = HttpConnection(asyncio.get_running_loop())
        connection.connection_made(Transport())
        connection.ask(b"", b"", seconds=10, limit=limit, each=False)
        asking = asyncio.ensure_future(connection.head())
        for piece in pieces:
            await asyncio.sleep(0)
            connection.data_received(piece)
        if closes:
            connection.connection_lost(None)
        status, _ = await asyncio.wait_for(asking, 5)
        body = await asyncio.wait_for(connection.whole(), 5)
        connection.end()
        return status, body, connection.reusable

    return asyncio.run(run())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


@settings(max_examples=25)
@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=8), st.integers(1, 50), st.booleans())
def test_an_answer_is_read_however_it_is_cut(body: bytes, places: list[int], chunk: int, informed: bool) -> None:
    chunks = [body[n : n + chunk] for n in range(0, len(body), chunk)]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n"
    first = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" if informed else b""
    head = first + b"HTTP/1.1 201 Created\r\nX: y\r\n"
    for said, closes, again in (
        (head + b"content-length: %d\r\n\r\n" % len(body) + body, False, True),
        (head + b"transfer-encoding: chunked\r\n\r\n" + chunked, False, True),
        (head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body, False, False),
        (head + b"\r\n" + body, True, False),
    ):
        assert exchange(cut(said, places), closes=closes) == (201, body, again)


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=120), st.lists(st.integers(0, 200), max_size=4))
def test_anything_ends_in_an_answer_or_an_error(said: bytes, places: list[int]) -> None:
    for data in (said, b"HTTP/1.1 200 OK\r\n" + said, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + said):
        try:
            status, _, _ = exchange(cut(data, places), closes=True)
        except BrokenError:
            continue
        assert status >= 200


def ask(client: HttpClient, port: int, *, seconds: float = 10, headers=None):
    address = parse_address(f"http://127.0.0.1:{port}/base", "url")
    return client.post(address, "/x", b"body", headers or {}, seconds, "the stage")


def test_a_connection_is_used_again_and_replaced_when_it_is_gone() -> None:
    async def run() -> None:
        connections = 0
        heads: list[bytes] = []

        async def speak(reader, writer):
            nonlocal connections
            connections += 1
            for number in range(3):
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                assert await reader.readexactly(4) == b"body"
                writer.write(ANSWER)
                if number == 2:  # and hangs up, without a word, as servers do
                    await writer.drain()
                    return

        client = HttpClient(parse_hosts(LOOPBACK), 1000)
        async with tcp_server(speak) as port:
            for _ in range(7):
                answer = await ask(client, port, headers={"x-a": "b"})
                assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"{}", "2")
                await asyncio.sleep(0.02)  # the end of the connection is seen before the next request
            assert connections == 3
        head = b"POST /base/x HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-length: 4\r\nx-a: b\r\n\r\n" % port
        assert set(heads) == {head}
        await client.close()

    asyncio.run(run())


@pytest.mark.parametrize("more", [ANSWER, ANSWER[:9]])
def test_what_nobody_asked_for_ends_the_connection(more: bytes) -> None:
    async def run() -> None:
        connections = 0

        async def speak(reader, writer):
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER + more)  # an answer to the next client's question, if one were asked here
            await reader.read()

        client = HttpClient(parse_hosts(LOOPBACK), 1000)
        async with tcp_server(speak) as port:
            for _ in range(3):
                assert (await ask(client, port)).body == b"{}"
            assert connections == 3
        await client.close()

    asyncio.run(run())


def test_requests_wait_for_a_place_and_a_cancelled_one_gives_it_back() -> None:
    async def run() -> None:
        go = asyncio.Event()
        open_now = most = 0

        async def speak(reader, writer):
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            try:
                while True:
                    await reader.readuntil(b"\r\n\r\nbody")
                    await go.wait()
                    writer.write(ANSWER)
            finally:
                open_now -= 1

        client = HttpClient(parse_hosts(LOOPBACK), 1000, max_connections=2)
        async with tcp_server(speak) as port:
            asking = [asyncio.ensure_future(ask(client, port)) for _ in range(4)]
            async with asyncio.timeout(10):
                while most < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            asking[0].cancel()
            await asyncio.wait([asking[0]])
            go.set()
            assert [answer.body for answer in await asyncio.gather(*asking[1:])] == [b"{}"] * 3
            assert most == 2
        await client.close()

    asyncio.run(run())


def test_a_stream_is_read_no_faster_than_it_is_taken() -> None:
    async def run() -> None:
        written = 0

        async def speak(reader, writer):
            nonlocal written
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 << 20))
            for _ in range(1024):
                writer.write(b"x" * (64 << 10))
                written += 64 << 10
                await writer.drain()

        client = HttpClient(parse_hosts(LOOPBACK), 1000)
        async with tcp_server(speak) as port:
            address = parse_address(f"http://127.0.0.1:{port}", "url")
            async with client.stream("GET", address, "/", b"", {}, 10, "the stage") as (_, _, pieces):
                first = await anext(pieces)
                before = -1
                while written != before:  # until the server can write no more, since nobody reads
                    before = written
                    await asyncio.sleep(0.05)
                assert len(first) + written < 32 << 20
                size = len(first)
                async for piece in pieces:
                    size += len(piece)
            assert size == 64 << 20
        await client.close()

    asyncio.run(run())


def test_each_piece_of_a_stream_has_its_time() -> None:
    async def run() -> None:
        async def speak(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            for _ in range(3):
                writer.write(b"x")
                await asyncio.sleep(0.1)
            await reader.read()

        client = HttpClient(parse_hosts(LOOPBACK), 1000)
        async with tcp_server(speak) as port:
            address = parse_address(f"http://127.0.0.1:{port}", "url")
            found = b""
            with pytest.raises(DeadlineExceeded, match="the stage did not answer in time"):
                async with client.stream("GET", address, "/", b"", {}, 0.25, "the stage") as (_, _, pieces):
                    async for piece in pieces:
                        found += piece
            assert found == b"xxx"
        await client.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc", Unavailable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef", Unavailable),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000, ResourceExhausted),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Unavailable),
    ],
)
def test_other_answers_are_refused(said: bytes, error: type[ServiceError]) -> None:
    async def run() -> None:
        async def speak(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()

        client = HttpClient(parse_hosts(LOOPBACK), 1000)
        async with tcp_server(speak) as port:
            with pytest.raises(error, match="the stage"):
                await ask(client, port)
        await client.close()

    asyncio.run(run())


def test_a_header_of_two_lines_is_not_sent() -> None:
    async def run() -> None:
        client = HttpClient(parse_hosts(LOOPBACK), 1000)
        with pytest.raises(InvalidArgument, match="x-a: must be one line"):
            await ask(client, 1, headers={"x-a": "1\r\nx-b: 2"})

    asyncio.run(run())
