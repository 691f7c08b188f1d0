"""A strict HTTP/2 client (the library h2) against our server: whatever breaks RFC 9113 raises in it."""

import asyncio
import gzip
import zlib
from collections.abc import Iterator
from typing import Any

import h2.events
import h2.settings
import pytest
from h2.errors import ErrorCodes
from mlmesh_kit.errors import NotFound
from mlmesh_kit.http2.settings import Limits
from support.wire import REQUEST, StrictClient, Wire, message, until

BIG = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


@pytest.fixture
def client(wire: Wire) -> StrictClient:
    return StrictClient(wire)


def test_a_call_is_answered(client: StrictClient) -> None:
    for number in range(5):  # the later ones find their header block remembered
        stream = client.ask(message(b"hello %d" % number))
        assert client.body(stream) == message(b"hello %d" % number)
        assert client.fields(stream) == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
        assert client.of(h2.events.StreamEnded, stream)


def test_header_blocks_that_change_the_table_are_read_right(client: StrictClient, wire: Wire) -> None:
    """The same bytes mean something else once the table has changed."""
    seen: list[Any] = []
    wire.server.methods[b"/Echo/Echo"].handler = lambda data, call: seen.append(dict(call.metadata)) or data
    for number in range(300):  # enough to drive the first entries out of the table
        client.ask(message(b""), [*REQUEST, ("x-one", str(number // 3)), ("x-two", "a" * (number % 40))])
    assert seen == [{"x-one": str(n // 3), "x-two": "a" * (n % 40)} for n in range(300)]


def test_many_streams_at_once(client: StrictClient) -> None:
    numbers = []
    for number in range(100):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, REQUEST)
        numbers.append((stream, number))
    for stream, number in reversed(numbers):
        client.h2.send_data(stream, message(b"%d" % number), end_stream=True)
    client.exchange()
    assert [client.body(stream) for stream, _ in numbers] == [message(b"%d" % n) for _, n in numbers]


def test_big_messages_both_ways_respect_the_windows(client: StrictClient) -> None:
    stream = client.ask(message(BIG))
    assert len(client.body(stream)) == 65_535  # the window; not one byte more
    while not client.of(h2.events.StreamEnded, stream):
        client.take(stream)
    assert client.body(stream) == message(BIG)
    assert client.fields(stream)["grpc-status"] == "0"


def test_frames_are_no_larger_than_the_peer_allows(client: StrictClient) -> None:
    codes = h2.settings.SettingCodes
    client.h2.update_settings({codes.INITIAL_WINDOW_SIZE: 1 << 24, codes.MAX_FRAME_SIZE: 100_000})
    client.h2.increment_flow_control_window(1 << 24)
    client.exchange()
    stream = client.ask(message(BIG))  # h2 raises at a larger frame
    sizes = [len(event.data) for event in client.of(h2.events.DataReceived, stream)]
    assert sum(sizes) == len(BIG) + 5 and max(sizes) == 100_000


def test_streams_take_turns(client: StrictClient) -> None:
    """A large answer does not hold up the ones behind it."""
    client.h2.increment_flow_control_window(1 << 20)
    large = [client.ask(message(BIG)) for _ in range(2)]
    small = client.ask(message(b"small"))
    assert client.of(h2.events.StreamEnded, small)
    assert not any(client.of(h2.events.StreamEnded, stream) for stream in large)


def test_an_answer_waits_for_the_transport(client: StrictClient, wire: Wire) -> None:
    client.h2.increment_flow_control_window(1 << 24)
    client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
    client.exchange()
    wire.pipe.full = True
    stream = client.ask(message(BIG))
    held = len(client.body(stream))
    assert held < 600_000
    wire.pipe.drain()
    client.exchange()
    assert client.body(stream) == message(BIG)


def test_padding_counts_and_is_not_delivered(client: StrictClient) -> None:
    """More padding than the window in all: it is given back at once."""
    stream = client.ask(b"", end=False)
    body = message(b"y" * 2000)
    for at in range(0, len(body), 5):
        client.h2.send_data(stream, body[at : at + 5], pad_length=255, end_stream=at + 5 >= len(body))
        client.exchange()
    assert client.body(stream) == body


def test_trailers_of_a_request_and_ping(client: StrictClient) -> None:
    stream = client.ask(message(b"hi"), end=False)
    client.h2.send_headers(stream, [("x-checksum", "1")], end_stream=True)
    client.h2.ping(b"12345678")
    client.exchange()
    assert client.body(stream) == message(b"hi")
    assert [e.ping_data for e in client.events if isinstance(e, h2.events.PingAckReceived)] == [b"12345678"]


def test_long_header_lists_come_in_continuations(client: StrictClient) -> None:
    found = client.ask(message(b"a"), [*REQUEST, *((f"x-{n}", "v" * 1000) for n in range(20))])
    assert client.body(found) == message(b"a")
    too_long = client.ask(message(b"a"), [*REQUEST, *((f"x-{n}", "v" * 1000) for n in range(40))])
    assert client.fields(too_long)["grpc-status"] == "8"
    assert client.body(client.ask(message(b"still there"))) == message(b"still there")


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"grpc-timeout": "1"}, "3", "grpc-timeout"),
        ({"grpc-timeout": "123456789S"}, "3", "grpc-timeout"),
        ({"grpc-encoding": "snappy"}, "12", "snappy"),
        ({":path": "/Echo/No"}, "12", "/Echo/No"),
    ],
)
def test_requests_that_cannot_be_served(client: StrictClient, changes: dict[str, str], status: str, words: str) -> None:
    stream = client.ask(message(b"x"), list({**dict(REQUEST), **changes}.items()))
    fields = client.fields(stream)
    assert fields["grpc-status"] == status and words in fields["grpc-message"]
    assert fields[":status"] == "200"
    if status == "12":
        assert fields["grpc-accept-encoding"] == "identity, deflate, gzip"


@pytest.mark.parametrize("changes", [{":method": "GET"}, {"content-type": "application/json"}])
def test_what_is_not_grpc_gets_a_status_of_http(client: StrictClient, changes: dict[str, str]) -> None:
    stream = client.ask(b"", list({**dict(REQUEST), **changes}.items()))
    assert client.fields(stream)[":status"] == "415"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "12"),  # no message
        (message(b"a") + message(b"b"), "12"),  # two
        (message(b"a") + b"\0", "12"),
        (message(b"abc")[:-1], "13"),
        (b"\0\0", "13"),
        (message(b"abc", 1), "13"),  # compressed, but by what?
        (message(b"abc", 7), "13"),
        (b"\0\xff\xff\xff\xff", "8"),
    ],
)
def test_bodies_that_are_not_one_message(client: StrictClient, body: bytes, status: str) -> None:
    stream = client.ask(body)
    assert client.fields(stream)["grpc-status"] == status
    assert client.body(stream) == b""


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests(client: StrictClient, name: str, pack: Any) -> None:
    headers = [*REQUEST, ("grpc-encoding", name)]
    assert client.body(client.ask(message(pack(b"hello" * 100), 1), headers)) == message(b"hello" * 100)
    assert client.body(client.ask(message(b"as it is", 0), headers)) == message(b"as it is")
    for wrong in (pack(b"hello")[:-3], pack(b"hello") + b"x", b"junk"):
        assert client.fields(client.ask(message(wrong, 1), headers))["grpc-status"] == "13"


def test_a_bomb_is_not_blown_up() -> None:
    wire = Wire(limits=Limits(message=100_000, gathered=100_000))
    client = StrictClient(wire)
    headers = [*REQUEST, ("grpc-encoding", "gzip")]
    stream = client.ask(message(gzip.compress(b"\0" * 50_000_000), 1), headers)
    assert client.fields(stream)["grpc-status"] == "8"
    wire.close()


def test_an_early_answer_ends_the_request(client: StrictClient) -> None:
    """RFC 9113, section 8.1: a complete answer, then RST_STREAM with NO_ERROR; what still comes is ignored."""
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream, [*REQUEST, ("grpc-timeout", "never")])
    client.exchange()
    assert client.fields(stream)["grpc-status"] == "3"
    reset = client.of(h2.events.StreamReset, stream)
    assert [event.error_code for event in reset] == [ErrorCodes.NO_ERROR]
    assert client.body(client.ask(message(b"next"))) == message(b"next")


def test_handlers_that_wait_are_cancelled_and_give_their_place_back() -> None:
    waiting: list[asyncio.Future[bytes]] = []

    def handler(data: bytes, call: Any) -> asyncio.Future[bytes]:
        waiting.append(wire.loop.create_future())
        return waiting[-1]

    wire = Wire({"/Echo/Echo": handler}, most_calls=2)
    client = StrictClient(wire)
    first, second, third = (client.ask(message(b"x")) for _ in range(3))
    assert client.fields(third)["grpc-status"] == "8"  # two are in flight
    client.h2.reset_stream(first, ErrorCodes.CANCEL)
    client.exchange()
    assert waiting[0].cancelled()
    fourth = client.ask(message(b"x"))
    waiting[1].set_result(b"second")
    waiting[2].set_exception(NotFound("thing", "t"))
    client.exchange()
    assert client.body(second) == message(b"second")
    assert client.fields(fourth)["grpc-status"] == "5" and "grpc-status-details-bin" in client.fields(fourth)
    assert wire.server.calls == 0
    wire.close()


def test_deadlines() -> None:
    cancelled: list[bool] = []

    async def handler(data: bytes, call: Any) -> bytes:
        assert call.time_remaining() == 2.0
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return b""

    wire = Wire({"/Echo/Echo": handler})
    client = StrictClient(wire)
    headers = [*REQUEST, ("grpc-timeout", "2000m")]
    stream = client.ask(message(b"x"), headers)
    slow = client.ask(message(b"xyz")[:-1], headers, end=False)  # the request itself is late
    wire.wait(1)
    client.exchange()
    assert not client.fields(stream)
    wire.wait(2)
    client.exchange()
    assert client.fields(stream)["grpc-status"] == client.fields(slow)["grpc-status"] == "4"
    assert cancelled == [True]
    assert wire.server.calls == 0
    wire.close()


def test_metadata_both_ways() -> None:
    seen: list[Any] = []

    def handler(data: bytes, call: Any) -> bytes:
        seen.append(call.metadata)
        call.trailing_metadata = [("x-took", "1"), ("x-blob-bin", b"\0\xff")]
        return data

    wire = Wire({"/Echo/Echo": handler})
    client = StrictClient(wire)
    stream = client.ask(message(b"x"), [*REQUEST, ("x-a", "1"), ("x-b-bin", "AP8"), ("x-b-bin", "AP8=,AQ")])
    assert seen == [[("x-a", "1"), ("x-b-bin", b"\0\xff"), ("x-b-bin", b"\0\xff"), ("x-b-bin", b"\1")]]
    assert client.fields(stream)["x-took"] == "1" and client.fields(stream)["x-blob-bin"] == "AP8"
    bad = client.ask(message(b"x"), [*REQUEST, ("x-b-bin", "*")])
    assert client.fields(bad)["grpc-status"] == "3"
    wire.close()


def test_error_messages_are_percent_encoded() -> None:
    def handler(data: bytes, call: Any) -> bytes:
        raise NotFound(message="50% of größe\n")

    wire = Wire({"/Echo/Echo": handler})
    client = StrictClient(wire)
    assert client.fields(client.ask(message(b"")))["grpc-message"] == "50%25 of gr%C3%B6%C3%9Fe%0A"
    wire.close()


def test_requests_wait_for_room_and_all_end() -> None:
    """Messages that together are more than may be gathered: each waits for its turn, none is lost."""
    wire = Wire(limits=Limits(message=200_000, gathered=250_000))
    client = StrictClient(wire)
    client.h2.increment_flow_control_window(1 << 24)
    client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
    streams = []
    for _ in range(6):
        streams.append(client.ask(message(b"z" * 200_000)[:65_535], end=False))
    open_windows = [client.h2.local_flow_control_window(stream) for stream in streams]
    assert open_windows == [200_005 - 65_535] + [0] * 5
    client.h2.reset_stream(streams[1], ErrorCodes.CANCEL)  # one that waits goes away
    for stream in (streams[0], *streams[2:]):
        client.push(stream, message(b"z" * 200_000)[65_535:])
        assert client.body(stream) == message(b"z" * 200_000)
    wire.close()


def test_draining(wire: Wire, client: StrictClient) -> None:
    """First "go, when you can"; once the client knows, the last stream; the end when that is answered."""
    answers: list[asyncio.Future[bytes]] = []

    def handler(data: bytes, call: Any) -> asyncio.Future[bytes]:
        answers.append(wire.loop.create_future())
        return answers[-1]

    wire.server.methods[b"/Echo/Echo"].handler = handler
    early = client.ask(message(b"x"))
    task = wire.loop.create_task(wire.server.stop(60))
    until(lambda: wire.server.draining, wire)
    goaway = wire.frames()
    assert [(kind, payload[:8].hex()) for kind, _, _, payload in goaway if kind == 7] == [(7, "7fffffff00000000")]
    assert goaway[-1][0] == 6
    client.events += client.h2.receive_data(b"".join(_frame(*one) for one in goaway if one[0] == 6))
    client.exchange()  # the answer to PING; now the last stream is known
    gone = [event for event in client.events if isinstance(event, h2.events.ConnectionTerminated)]
    assert [(event.last_stream_id, event.error_code) for event in gone] == [(early, ErrorCodes.NO_ERROR)]
    assert not task.done()
    answers[0].set_result(b"late")
    until(lambda: wire.pipe.ended, wire)
    assert message(b"late") in wire.read()
    wire.pipe.abort()
    until(task.done, wire)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
