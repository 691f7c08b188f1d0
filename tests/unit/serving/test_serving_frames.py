"""Frames between router and worker, cut wherever a socket may cut them."""

import asyncio
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from mlmesh_serving.backend import Door
from mlmesh_serving.workers import frames
from mlmesh_serving.workers.channel import Channel, RouterGone
from mlmesh_serving.workers.doors import Encoded
from mlmesh_serving.workers.engine import Reply
from mlmesh_serving.workers.faults import decode_fault, encode_fault
from mlmesh_serving.workers.link import Link

TOKEN = "t" * frames.TOKEN_BYTES


class Peer:
    def __init__(self):
        self.answers = []
        self.gone = False

    def connected(self, transport):
        pass

    def answered(self, number, code, body, json_length):
        self.answers.append((number, code, body, json_length))

    def disconnected(self):
        self.gone = True


def feed(link: Link, data: bytes, sizes):
    """Gives a link bytes as a transport would, in pieces of these sizes and then as large as it takes them."""
    position, turn = 0, iter(sizes)
    while position < len(data):
        buffer = link.get_buffer(-1)
        size = min(len(buffer), len(data) - position, next(turn, 1 << 30))
        buffer[:size] = data[position : position + size]
        link.buffer_updated(size)
        position += size


BODIES = st.one_of(st.binary(max_size=50), st.integers(0, 600_000).map(bytes))
ANSWERS = st.lists(
    st.tuples(st.integers(0, 1 << 40), st.integers(0, 16), BODIES, st.none() | st.integers(0, 9)), max_size=6
)


@settings(max_examples=60, deadline=None)
@given(ANSWERS, st.lists(st.integers(1, 300_000), max_size=20))
def test_the_router_reads_what_was_sent_however_it_comes(answers, sizes):
    peer = Peer()
    link = Link(lambda token: peer if token == TOKEN else None)
    link.connection_made(asyncio.Transport())
    sent = TOKEN.encode()
    for number, code, body, length in answers:
        json_length = frames.ALL_JSON if length is None else length
        sent += frames.ANSWER.pack(len(body), number, json_length, code) + body
    feed(link, sent, sizes)
    assert peer.answers == answers


def test_who_has_no_token_is_cut_off():
    class Transport(asyncio.Transport):
        aborted = False

        def abort(self):
            self.aborted = True

    transport, peer = Transport(), Peer()
    link = Link(lambda token: peer if token == TOKEN else None)
    link.connection_made(transport)
    feed(link, b"x" * frames.TOKEN_BYTES + frames.ANSWER.pack(0, 1, 0, 0), [])
    assert transport.aborted and not peer.answers


@pytest.fixture
def pair(tmp_path):
    mark = tmp_path / "mark"
    mark.write_bytes(bytes(frames.MARK.size))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, Channel(theirs, mark), mark


def pack(number, body, *, model="m", door=0, length=None, deadline=0.0):
    name = model.encode()
    json_length = frames.ALL_JSON if length is None else length
    return frames.REQUEST.pack(len(body), number, json_length, len(name), door, deadline) + name + body


def test_a_worker_reads_what_was_sent_however_it_comes(pair):
    router, channel, _ = pair
    bodies = [
        b"",
        b"a",
        bytes(1000),
        bytes(frames.BUFFER_BYTES - 29),
        bytes(frames.BUFFER_BYTES),
        b"z" * 3_000_000,
        b"end",
    ]
    sent = b"".join(pack(n, body, model=f"modél-{n}", door=n % 4, length=n or None) for n, body in enumerate(bodies))
    pieces = [1, 26, 1, 5, 700, 100_000, 300_000, 7]

    def send():
        position = 0
        for size in (*pieces, len(sent)):
            router.sendall(sent[position : position + size])
            position += size

    thread = threading.Thread(target=send)
    thread.start()
    found = []
    while len(found) < len(bodies):
        found += channel.requests(None)
    thread.join()
    assert [bytes(request.body) for request in found] == bodies
    assert [request.model for request in found] == [f"modél-{n}" for n in range(len(bodies))]
    assert [request.door for request in found][:4] == [Door.GRPC, Door.REST_V2, Door.REST_V1, Door.EXPLAIN]
    assert [request.json_length for request in found] == [None, 1, 2, 3, 4, 5, 6]


def test_large_and_small_replies_arrive_whole(pair):
    router, channel, _ = pair
    parts = [b"head", memoryview(bytes(2_000_000)), b"", b"tail"]
    replies = [Reply(1, 0, Encoded([b"small"])), Reply(2, 0, Encoded(parts, 4)), Reply(3, 3, Encoded([b"{}"]))]
    expected = b"".join(
        frames.ANSWER.pack(sum(map(len, r.answer.parts)), r.number, r.answer.json_length or frames.ALL_JSON, r.code)
        + b"".join(r.answer.parts)
        for r in replies
    )
    thread = threading.Thread(target=channel.reply, args=(replies,))
    thread.start()
    found = bytearray()
    while len(found) < len(expected):
        found += router.recv(1 << 20)
    thread.join()
    assert found == expected


def test_what_was_begun_is_noted_where_the_router_sees_it(pair):
    _, channel, mark = pair
    channel.begin(77)
    assert struct.unpack("<Q", mark.read_bytes()) == (77,)


def test_a_worker_ends_with_its_router(pair):
    router, channel, _ = pair
    router.sendall(pack(1, bytes(1_000_000))[:100_000])
    router.close()
    with pytest.raises(RouterGone):
        list(channel.requests(None))
    with pytest.raises(RouterGone):
        channel.reply([Reply(1, 0, Encoded([b"x"]))])


def test_waiting_ends(pair):
    _, channel, _ = pair
    assert list(channel.requests(0.001)) == []


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument("must be 4", field="inputs[0].shape"),
        InvalidArgument.of([("a", "must be b"), ("c", "must be d")]),
        InvalidArgument("no field"),
        FailedPrecondition("not like this"),
        NotFound(message="model 'x' not found"),
    ],
)
def test_errors_arrive_as_they_were(error):
    again = decode_fault(*encode_fault(error))
    assert type(again) is type(error) and again.message == error.message
    assert getattr(again, "violations", None) == getattr(error, "violations", None)
    assert again.details == error.details
