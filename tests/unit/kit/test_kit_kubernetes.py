"""Answers of a cluster that go on: read in a thread of their own, ended when nobody reads any more."""

import asyncio
import contextlib
import functools
import socket
import threading

import pytest
import urllib3
from mlmesh_kit.errors import Unavailable
from mlmesh_kit.kubernetes import Answer, Gone, follow


def in_loop(test):
    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """Answers one request with given chunks, then says nothing until the client has gone."""

    def __init__(self, *chunks: bytes, ends: bool = False) -> None:
        self._chunks = chunks
        self._ends = ends
        self.has_left = threading.Event()

    def __enter__(self) -> "Server":
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.recv(1 << 16)
            connection.sendall(HEAD)
            for chunk in self._chunks:
                connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if self._ends:
                connection.sendall(b"0\r\n\r\n")
            while connection.recv(1 << 16):
                pass
        self.has_left.set()

    def ask(self) -> Answer:
        url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        response = urllib3.PoolManager().request("GET", url, preload_content=False, retries=False)
        return Answer(response, "pod", "one")


@in_loop
async def test_a_reader_that_leaves_a_silent_log_ends_its_connection_and_its_thread():
    with Server(b"first\n") as server:
        pieces = follow(server.ask, Answer.pieces, "a silent log")
        assert await anext(pieces) == b"first\n"
        (thread,) = [one for one in threading.enumerate() if one.name == "a silent log"]
        waiting = asyncio.create_task(anext(pieces))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await pieces.aclose()
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
        assert await asyncio.to_thread(server.has_left.wait, 10)


@in_loop
async def test_an_answer_is_given_to_its_end():
    with Server(b"one\n", b"two\n", ends=True) as server:
        found = [piece async for piece in follow(server.ask, Answer.pieces, "log")]
    assert b"".join(found) == b"one\ntwo\n"


@in_loop
async def test_events_are_lines_wherever_they_are_cut():
    lines = b'{"type": "ADDED", "object": {"n": 1}}\n{"type": "DELETED", "object": {"n": 2}}\n'
    with Server(lines[:50], lines[50:], ends=True) as server:
        found = [event async for event in follow(server.ask, Answer.events, "watch")]
    assert found == [("ADDED", {"n": 1}), ("DELETED", {"n": 2})]


@pytest.mark.parametrize(("code", "error"), [(410, Gone), (500, Unavailable)])
@in_loop
async def test_a_watch_that_the_cluster_ends_says_why(code, error):
    line = b'{"type": "ERROR", "object": {"code": %d, "message": "said"}}\n' % code
    with Server(line) as server, pytest.raises(error):
        async for _ in follow(server.ask, Answer.events, "watch"):
            pass


@in_loop
async def test_what_cannot_be_asked_is_raised():
    def ask() -> Answer:
        raise Unavailable("away")

    with pytest.raises(Unavailable, match="away"):
        await anext(follow(ask, Answer.pieces, "log"))
