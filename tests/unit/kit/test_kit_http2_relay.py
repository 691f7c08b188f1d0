"""Calls that are relayed, with a server behind that does as it pleases."""

import asyncio
import base64
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from mlmesh_kit.errors import InvalidArgument, ServiceError, Unavailable, to_status
from mlmesh_kit.http2.client import RawClient
from mlmesh_kit.http2.front import private_folder
from mlmesh_kit.http2.server import Http2Server
from mlmesh_kit.http2.upstream import Upstream
from support.h2_server import H2Peer, H2Server, until
from support.wire import message

METHOD = "/Echo/Do"


@contextlib.asynccontextmanager
async def front(path: Path) -> AsyncIterator[tuple[Http2Server, RawClient]]:
    """Our server, without methods of its own, before what listens at `path`; and a client of it."""
    loop = asyncio.get_running_loop()
    upstream = Upstream(str(path), loop)
    await upstream.open()
    server = Http2Server({}, loop, upstream=upstream)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.start(listener)
    client = RawClient(f"127.0.0.1:{listener.getsockname()[1]}")
    try:
        yield server, client
    finally:
        await client.close()
        await server.stop(0)
        await upstream.close()


def run(test: Callable[[Path], Awaitable[None]], folder: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(folder / "s"), 20))  # type: ignore[arg-type]


async def code_of(answer: Awaitable[bytes]) -> str:
    with pytest.raises(ServiceError) as caught:
        await answer
    return caught.value.code.name


def echo(peer: H2Peer, stream: int, body: bytes) -> None:
    peer.answer(stream, body)


def test_headers_bodies_and_trailers_pass_as_they_are(tmp_path: Path) -> None:
    error = InvalidArgument("must be positive", field="größe")
    details = to_status(error).SerializeToString()

    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        assert peer.requests[stream]["x-blob-bin"] == "AP8" and peer.requests[stream]["grpc-timeout"].endswith("u")
        if body == message(b"fail"):
            trailers = [("grpc-status", "3"), ("grpc-message", "gr%C3%B6%C3%9Fe: must be positive")]
            peer.answer(stream, end=[*trailers, ("grpc-status-details-bin", base64.b64encode(details).decode())])
        else:
            peer.answer(stream, body)

    async def test(path: Path) -> None:
        async with H2Server(script, path=str(path)), front(path) as (_, client):
            for body in (b"", b"x", b"y" * 60_000):
                assert await client.call(METHOD, body, timeout=5, metadata=[("x-blob-bin", b"\0\xff")]) == body
            with pytest.raises(InvalidArgument) as caught:
                await client.call(METHOD, b"fail", timeout=5, metadata=[("x-blob-bin", b"\0\xff")])
            assert to_status(caught.value) == to_status(error)

    run(test, tmp_path)


@pytest.mark.parametrize("begun", [False, True])
def test_a_server_behind_that_breaks_off_is_unavailable_and_found_again(tmp_path: Path, begun: bool) -> None:
    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        if body != message(b"break"):
            peer.answer(stream, body)
            return
        if begun:
            peer.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            peer.h2.send_data(stream, message(b"half an answer")[:9])
            peer.flush()
        asyncio.get_running_loop().call_later(0.05, peer.transport.abort)

    async def test(path: Path) -> None:
        async with H2Server(script, path=str(path)) as behind, front(path) as (_, client):
            assert await client.call(METHOD, b"x") == b"x"
            broken = [client.call(METHOD, b"break") for _ in range(3)]
            assert [await code_of(answer) for answer in broken] == ["UNAVAILABLE"] * 3
            while True:
                with contextlib.suppress(Unavailable):
                    assert await client.call(METHOD, b"again") == b"again"
                    break
                await asyncio.sleep(0.01)
            assert len(behind.peers) == 2

    run(test, tmp_path)


@pytest.mark.parametrize(("code", "found"), [(8, "CANCELLED"), (2, "INTERNAL"), (11, "RESOURCE_EXHAUSTED")])
def test_resets_are_passed_on(tmp_path: Path, code: int, found: str) -> None:
    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        peer.h2.reset_stream(stream, code)

    async def test(path: Path) -> None:
        async with H2Server(script, path=str(path)), front(path) as (_, client):
            assert await code_of(client.call(METHOD, b"x")) == found

    run(test, tmp_path)


def test_what_the_server_behind_has_not_begun_is_sent_again(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        seen.append(body)
        if len(seen) == 1:
            peer.h2.reset_stream(stream, 7)
        else:
            peer.answer(stream, body)

    async def test(path: Path) -> None:
        async with H2Server(script, path=str(path)), front(path) as (_, client):
            assert await client.call(METHOD, b"x") == b"x"
        assert seen == [message(b"x")] * 2

    run(test, tmp_path)


def test_cancellation_is_passed_on(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def test(path: Path) -> None:
        async with H2Server(lambda *_: asked.set(), path=str(path)) as behind, front(path) as (_, client):
            answer = client.call(METHOD, b"x")
            await asked.wait()
            answer.cancel()
            late = client.call(METHOD, b"x", timeout=0.05)
            assert await code_of(late) == "DEADLINE_EXCEEDED"
            (peer,) = behind.peers
            await until(lambda: len(peer.resets) == 2)
            assert set(peer.resets.values()) == {8}

    run(test, tmp_path)


def test_the_front_drains_relayed_calls(tmp_path: Path) -> None:
    waiting: list[tuple[H2Peer, int, bytes]] = []
    asked = asyncio.Event()

    def script(peer: H2Peer, stream: int, body: bytes) -> None:
        waiting.append((peer, stream, body))
        asked.set()

    async def test(path: Path) -> None:
        async with H2Server(script, path=str(path)), front(path) as (server, client):
            answer = client.call(METHOD, b"late")
            await asked.wait()
            stopping = asyncio.create_task(server.stop(10))
            await until(lambda: server.draining)
            peer, stream, body = waiting[0]
            asyncio.get_running_loop().call_later(0.1, peer.answer, stream, body)
            assert await answer == b"late"
            await stopping

    run(test, tmp_path)


def test_without_a_server_behind_there_are_no_other_methods() -> None:
    async def test() -> None:
        server = Http2Server({}, asyncio.get_running_loop())
        listener = socket.create_server(("127.0.0.1", 0))
        await server.start(listener)
        client = RawClient(f"127.0.0.1:{listener.getsockname()[1]}")
        assert await code_of(client.call(METHOD, b"x")) == "UNIMPLEMENTED"
        await client.close()
        await server.stop(0)

    asyncio.run(test())


def test_the_folders_of_killed_processes_are_swept_up(tmp_path: Path) -> None:
    """Not those where somebody listens, or may be about to."""
    with contextlib.ExitStack() as stack:
        for name, age in (("grpc-dead", 100), ("grpc-bare", 100), ("grpc-alive", 100), ("grpc-young", 10)):
            folder = tmp_path / name
            folder.mkdir()
            if name != "grpc-bare":
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(folder / "s"))
                if name == "grpc-alive":
                    listener.listen()
                    stack.enter_context(listener)
                else:
                    listener.close()
            os.utime(folder, (time.time() - age,) * 2)
        with private_folder(tmp_path) as made:
            assert {path.name for path in tmp_path.iterdir()} == {"grpc-alive", "grpc-young", Path(made).name}
            assert Path(made).stat().st_mode & 0o777 == 0o700
        assert not Path(made).exists()
