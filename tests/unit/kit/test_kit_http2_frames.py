"""Bytes that break RFC 9113, and bytes that are meant to hurt, against our HTTP/2 server."""

import struct
from collections.abc import Iterator
from typing import Any

import hpack
import pytest
from mlmesh_kit.http2 import frames
from mlmesh_kit.http2.calm import FREE_FRAMES, FREE_RESETS
from mlmesh_kit.http2.faults import ErrorCode
from mlmesh_kit.http2.frames import frame
from mlmesh_kit.http2.header_blocks import encode
from mlmesh_kit.http2.settings import Limits
from support.wire import REQUEST, Wire, message, split

BLOCK = encode([(name.encode(), value.encode()) for name, value in REQUEST])
END = frames.END_HEADERS | frames.END_STREAM
OPEN = frame(frames.HEADERS, frames.END_HEADERS, 1, BLOCK)
WHOLE = OPEN + frame(frames.DATA, frames.END_STREAM, 1, message(b"x"))
PING = frame(frames.PING, 0, 0, b"12345678")


def fields(*changes: tuple[bytes, bytes], leave: bytes = b"") -> bytes:
    kept = [(name.encode(), value.encode()) for name, value in REQUEST if name.encode() != leave]
    return encode([*kept, *changes])


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    made.greet()
    yield made
    made.close()


def goaway(wire: Wire) -> ErrorCode:
    """The code of the GOAWAY that ended the connection."""
    written = [one for one in wire.frames() if one[0] == frames.GOAWAY]
    assert len(written) == 1, "no GOAWAY, or several"
    assert wire.pipe.ended
    return ErrorCode(struct.unpack_from(">I", written[0][3], 4)[0])


def resets(wire: Wire) -> list[tuple[int, ErrorCode]]:
    return [(one[2], ErrorCode(int.from_bytes(one[3], "big"))) for one in wire.frames() if one[0] == frames.RST_STREAM]


def alive(wire: Wire) -> bool:
    """Whether the connection still answers."""
    wire.send(PING)
    return any(kind == frames.PING and payload == b"12345678" for kind, _, _, payload in wire.frames())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(frames.DATA, 0, 0, b"x"), "PROTOCOL_ERROR"),
        (frame(frames.DATA, 0, 1, b"x"), "PROTOCOL_ERROR"),  # idle
        (OPEN + frame(frames.DATA, frames.PADDED, 1, b"\x05abcd"), "PROTOCOL_ERROR"),
        (OPEN + frame(frames.DATA, frames.PADDED, 1, b""), "PROTOCOL_ERROR"),
        (frame(frames.HEADERS, END, 0, BLOCK), "PROTOCOL_ERROR"),
        (frame(frames.HEADERS, END, 2, BLOCK), "PROTOCOL_ERROR"),
        (frame(frames.HEADERS, END, 5, BLOCK) + frame(frames.HEADERS, END, 3, BLOCK), "STREAM_CLOSED"),
        (WHOLE + frame(frames.HEADERS, END, 1, BLOCK), "STREAM_CLOSED"),
        (frame(frames.HEADERS, END | frames.PADDED, 1, b"\xff" + BLOCK), "PROTOCOL_ERROR"),
        (frame(frames.HEADERS, END | frames.PADDED, 1, b""), "FRAME_SIZE_ERROR"),
        (frame(frames.HEADERS, END | frames.HAS_PRIORITY, 1, b"\0\0\0"), "FRAME_SIZE_ERROR"),
        (frame(frames.HEADERS, END, 1, b"\xff\xff\xff\xff\xff\x0f"), "COMPRESSION_ERROR"),
        (frame(frames.HEADERS, END, 1, b"\x80"), "COMPRESSION_ERROR"),  # index 0
        (frame(frames.HEADERS, END, 1, b"\x3f\xff\xff\x03"), "COMPRESSION_ERROR"),  # a table larger than allowed
        (frame(frames.HEADERS, END, 1, b"\x20\x3f\x01\x20" + BLOCK), "COMPRESSION_ERROR"),  # three sizes
        (frame(frames.HEADERS, END, 1, BLOCK + b"\x20"), "COMPRESSION_ERROR"),  # a size behind fields
        (frame(frames.HEADERS, END, 1, b"\x00\x05ab"), "COMPRESSION_ERROR"),
        (frame(frames.HEADERS, 0, 1, BLOCK) + PING, "PROTOCOL_ERROR"),
        (frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.CONTINUATION, 4, 3, b""), "PROTOCOL_ERROR"),
        (frame(frames.HEADERS, 0, 1, BLOCK) + frame(99, 0, 0, b""), "PROTOCOL_ERROR"),
        (frame(frames.CONTINUATION, 4, 1, b""), "PROTOCOL_ERROR"),
        (WHOLE + frame(frames.CONTINUATION, 4, 1, b""), "PROTOCOL_ERROR"),
        (frame(frames.PRIORITY, 0, 0, b"\0\0\0\0\0"), "PROTOCOL_ERROR"),
        (frame(frames.PRIORITY, 0, 1, b"\0\0\0\0"), "FRAME_SIZE_ERROR"),
        (frame(frames.RST_STREAM, 0, 0, b"\0\0\0\0"), "PROTOCOL_ERROR"),
        (frame(frames.RST_STREAM, 0, 1, b"\0\0\0\0"), "PROTOCOL_ERROR"),  # idle
        (OPEN + frame(frames.RST_STREAM, 0, 1, b"\0\0\0"), "FRAME_SIZE_ERROR"),
        (frame(frames.SETTINGS, 0, 1, b""), "PROTOCOL_ERROR"),
        (frame(frames.SETTINGS, 0, 0, b"\0\0\0"), "FRAME_SIZE_ERROR"),
        (frame(frames.SETTINGS, frames.ACK, 0, b"\0\3\0\0\0\0"), "FRAME_SIZE_ERROR"),
        (frames.settings_frame({2: 2}), "PROTOCOL_ERROR"),
        (frames.settings_frame({4: 1 << 31}), "FLOW_CONTROL_ERROR"),
        (frames.settings_frame({5: 16_383}), "PROTOCOL_ERROR"),
        (frames.settings_frame({5: 1 << 24}), "PROTOCOL_ERROR"),
        (frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), "PROTOCOL_ERROR"),
        (frame(frames.PING, 0, 1, b"12345678"), "PROTOCOL_ERROR"),
        (frame(frames.PING, 0, 0, b"1234567"), "FRAME_SIZE_ERROR"),
        (frame(frames.GOAWAY, 0, 1, b"\0" * 8), "PROTOCOL_ERROR"),
        (frame(frames.GOAWAY, 0, 0, b"\0" * 7), "FRAME_SIZE_ERROR"),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), "PROTOCOL_ERROR"),
        (frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), "PROTOCOL_ERROR"),  # idle
        (frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0"), "FRAME_SIZE_ERROR"),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), "FLOW_CONTROL_ERROR"),
        (struct.pack(">BHBBI", 0x41, 0, frames.DATA, 0, 1), "FRAME_SIZE_ERROR"),  # of more than 4 MiB
        (struct.pack(">BHBBI", 0, 20_000, frames.GOAWAY, 0, 0), "FRAME_SIZE_ERROR"),
        (struct.pack(">BHBBI", 2, 0, frames.HEADERS, 4, 1), "ENHANCE_YOUR_CALM"),
    ],
)
def test_what_ends_the_connection(wire: Wire, data: bytes, code: str) -> None:
    wire.send(data)
    assert goaway(wire).name == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PROTOCOL_ERROR"),
        (frames.PREFACE[:-1] + b"x", "PROTOCOL_ERROR"),
        (frames.PREFACE + PING, "PROTOCOL_ERROR"),
        (frames.PREFACE + frame(frames.SETTINGS, frames.ACK, 0), "PROTOCOL_ERROR"),
    ],
)
def test_how_a_connection_must_begin(data: bytes, code: str) -> None:
    wire = Wire()
    wire.send(data)
    assert goaway(wire).name == code
    wire.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (WHOLE[:-1] + b"x" + frame(frames.DATA, 0, 1, b"x"), "STREAM_CLOSED"),
        (OPEN + frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\0"), "PROTOCOL_ERROR"),
        (OPEN + frame(frames.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), "FLOW_CONTROL_ERROR"),
        (OPEN + frame(frames.PRIORITY, 0, 1, b"\0\0\0\0"), "FRAME_SIZE_ERROR"),
        (OPEN + frame(frames.HEADERS, frames.END_HEADERS, 1, b""), "PROTOCOL_ERROR"),  # trailers, and no end
        (OPEN + frame(frames.HEADERS, END, 1, BLOCK), "PROTOCOL_ERROR"),  # pseudo-header fields in trailers
        *(
            (frame(frames.HEADERS, END, 1, block), "PROTOCOL_ERROR")
            for block in (
                b"",
                fields(leave=b":method"),
                fields(leave=b":path"),
                fields(leave=b":scheme"),
                fields((b":path", b"/again"), leave=b""),
                fields((b":method", b"GET")),
                fields((b":status", b"200")),
                fields((b":path", b""), leave=b":path"),
                fields((b"x", b"1"), (b":authority", b"late"), leave=b":authority"),
                fields((b"Upper", b"1")),
                fields((b"", b"1")),
                fields((b"connection", b"close")),
                fields((b"transfer-encoding", b"chunked")),
                fields((b"te", b"gzip"), leave=b"te"),
                fields((b"x", b"a\nb")),
                fields((b"x", b"a\0b")),
                fields((b"x", b" a")),
                fields((b"content-length", b"-1")),
                fields((b"content-length", b"1")),
                fields((b"content-length", b"0"), (b"content-length", b"1")),
            )
        ),
        (
            frame(frames.HEADERS, 4, 1, fields((b"content-length", b"7"))) + frame(frames.DATA, 1, 1, message(b"a")),
            "PROTOCOL_ERROR",
        ),
        (
            frame(frames.HEADERS, 4, 1, fields((b"content-length", b"5"))) + frame(frames.DATA, 0, 1, message(b"a")),
            "PROTOCOL_ERROR",
        ),
    ],
)
def test_what_ends_a_stream_alone(wire: Wire, data: bytes, code: str) -> None:
    wire.send(data)
    assert [found.name for number, found in resets(wire) if number == 1] == [code]
    assert alive(wire)
    wire.send(frame(frames.HEADERS, 4, 3, BLOCK) + frame(frames.DATA, 1, 3, message(b"next")))
    assert message(b"next") in wire.read()


def test_data_for_a_stream_beyond_its_window_and_the_connection_s(wire: Wire) -> None:
    wire.send(OPEN + frame(frames.DATA, 0, 1, b"\0\1\0\0\0" + b"x" * 65_531))  # one byte too many
    assert resets(wire) == [(1, ErrorCode.FLOW_CONTROL_ERROR)]
    small = Wire(limits=Limits(connection_window=65_535, window=1 << 20))
    small.greet()
    small.send(OPEN + frame(frames.DATA, 0, 1, b"\0" * 65_536))
    assert goaway(small) is ErrorCode.FLOW_CONTROL_ERROR
    small.close()


@pytest.mark.parametrize(
    "data",
    [
        frame(99, 255, 7, b"anything" * 100),
        frame(99, 0, 0, b"x" * 1_000_000),
        frame(frames.PRIORITY, 0, 9, b"\0\0\0\1\1"),
        frame(frames.PING, frames.ACK, 0, b"unasked!"),
        frames.settings_frame({77: 1, 3: 0}),
        frame(frames.WINDOW_UPDATE, 0xFF, 0, b"\x80\0\0\1"),  # the reserved bit
        struct.pack(">BHBBI", 0, 8, frames.PING, 0, 1 << 31) + b"reserved",
        WHOLE + frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08") + frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
        frame(frames.HEADERS, END | frames.HAS_PRIORITY, 1, b"\0\0\0\1\1" + BLOCK),  # depends on itself
        frame(frames.HEADERS, frames.END_STREAM, 1, BLOCK[:9])
        + frame(frames.CONTINUATION, 0, 1, b"")
        + frame(frames.CONTINUATION, frames.END_HEADERS, 1, BLOCK[9:]),
    ],
)
def test_what_does_no_harm(wire: Wire, data: bytes) -> None:
    wire.send(data)
    wire.read()
    assert alive(wire)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_bytes_may_come_in_any_pieces(size: int) -> None:
    wire = Wire()
    body = message(b"y" * 300)
    parts = [
        frames.PREFACE + frames.settings_frame({3: 7}),
        frame(frames.HEADERS, frames.PADDED, 1, b"\x03" + BLOCK[:20] + b"\0\0\0"),
        frame(frames.CONTINUATION, frames.END_HEADERS, 1, BLOCK[20:]),
        frame(frames.DATA, frames.PADDED, 1, b"\x04" + body[:3] + b"\0" * 4),
        frame(250, 0, 0, b"unknown"),
        frame(frames.DATA, 0, 1, body[3:]),
        frame(frames.DATA, frames.END_STREAM | frames.PADDED, 1, b"\0"),
    ]
    data = b"".join(parts)
    for at in range(0, len(data), size):
        wire.send(data[at : at + size])
    assert body in wire.read()
    wire.close()


def test_windows_that_change_in_mid_stream(wire: Wire) -> None:
    """From 0 up, down below what was sent (a negative window), and up again."""
    wire.send(frames.settings_frame({4: 0}))
    wire.read()
    wire.send(OPEN + frame(frames.DATA, frames.END_STREAM, 1, message(b"x" * 50_000)))
    sent = 0
    for size, expected in ((0, 0), (10_000, 10_000), (4_000, 10_000), (9_000, 10_000), (12_000, 12_000)):
        wire.send(frames.settings_frame({4: size}))
        sent += sum(len(payload) for kind, _, _, payload in wire.frames() if kind == frames.DATA)
        assert sent == expected
    wire.send(frame(frames.WINDOW_UPDATE, 0, 1, struct.pack(">I", 38_005)))
    last = wire.frames()
    assert sum(len(payload) for kind, _, _, payload in last if kind == frames.DATA) == 38_005
    assert last[-1][:3] == (frames.HEADERS, END, 1)


def test_the_connection_s_window_holds_all_streams_back(wire: Wire) -> None:
    wire.send(frames.settings_frame({4: 1 << 20}))
    for number in (1, 3):
        wire.send(frame(frames.HEADERS, 4, number, BLOCK) + frame(frames.DATA, 1, number, message(b"x" * 50_000)))
    first = [one for one in wire.frames() if one[0] == frames.DATA]
    assert sum(len(payload) for _, _, _, payload in first) == 65_535
    wire.send(frame(frames.HEADERS, END, 5, fields((b"grpc-timeout", b"?"))))  # no DATA: not held back
    assert [one[2] for one in wire.frames() if one[0] == frames.HEADERS] == [5]
    wire.send(frames.window_update(0, 1 << 20))
    rest = wire.frames()
    assert sum(len(payload) for kind, _, _, payload in rest if kind == frames.DATA) == 100_010 - 65_535
    assert [one[2] for one in rest if one[0] == frames.HEADERS and one[1] & frames.END_STREAM] == [3]


def test_more_streams_than_allowed_are_refused() -> None:
    wire = Wire(limits=Limits(streams=2))
    wire.greet()
    for number in (1, 3, 5):
        wire.send(frame(frames.HEADERS, 4, number, BLOCK))
    assert resets(wire) == [(5, ErrorCode.REFUSED_STREAM)]
    wire.send(frame(frames.DATA, 1, 5, message(b"on its way")))  # ignored
    wire.send(frame(frames.DATA, 1, 3, message(b"three")))
    assert message(b"three") in wire.read()
    wire.close()


@pytest.mark.parametrize(
    "one",
    [
        PING,
        frames.settings_frame({}),
        frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\1"),
        frames.window_update(0, 1),
        frames.window_update(1, 1),
        frame(77, 0, 0, b""),
        frame(frames.DATA, 0, 1, b""),
        frame(frames.DATA, frames.PADDED, 1, b"\0"),
        frame(frames.RST_STREAM, 0, 1, b"\0\0\0\0"),
    ],
)
def test_floods_of_frames_that_ask_for_nothing(wire: Wire, one: bytes) -> None:
    wire.send(OPEN)
    wire.read()
    sent = 0
    while not wire.pipe.ended and sent < 3 * FREE_FRAMES:
        wire.send(one * 100)
        sent += 100
    assert goaway(wire) is ErrorCode.ENHANCE_YOUR_CALM
    assert sent <= FREE_FRAMES + 100


def test_pings_amid_work_are_welcome(wire: Wire) -> None:
    """gRPC measures its bandwidth by them."""
    for number in range(1, 6 * FREE_FRAMES // 2, 2):
        wire.send(
            frame(frames.HEADERS, 4, number, BLOCK)
            + frame(frames.DATA, 1, number, message(b"x"))
            + PING
            + frames.window_update(0, 6)
        )
    assert not wire.pipe.ended
    assert wire.read().count(b"12345678") == 3 * FREE_FRAMES // 2


def test_rapid_reset() -> None:
    futures: list[Any] = []

    def handler(data: bytes, call: Any) -> Any:
        futures.append(wire.loop.create_future())
        return futures[-1]

    wire = Wire({"/Echo/Echo": handler})
    wire.greet()
    number = 1
    while not wire.pipe.ended and number < 6 * FREE_RESETS:
        wire.send(
            frame(frames.HEADERS, 4, number, BLOCK)
            + frame(frames.DATA, 1, number, message(b"x"))
            + frame(frames.RST_STREAM, 0, number, b"\0\0\0\x08")
        )
        number += 2
    assert goaway(wire) is ErrorCode.ENHANCE_YOUR_CALM
    assert FREE_RESETS - 1 <= number // 2 <= FREE_RESETS + 2
    assert all(future.cancelled() for future in futures) and wire.server.calls == 0
    wire.close()


def test_continuation_flood(wire: Wire) -> None:
    wire.send(frame(frames.HEADERS, 0, 1, BLOCK))
    for _ in range(200):
        wire.send(frame(frames.CONTINUATION, 0, 1, b""))
    assert goaway(wire) is ErrorCode.ENHANCE_YOUR_CALM
    big = Wire()
    big.greet()
    big.send(frame(frames.HEADERS, 0, 1, BLOCK))
    for _ in range(8):
        big.send(frame(frames.CONTINUATION, 0, 1, b"\0" * 16_000))
    assert goaway(big) is ErrorCode.ENHANCE_YOUR_CALM
    big.close()


def test_hpack_bomb(wire: Wire) -> None:
    """A large entry in the table, then a byte for each copy of it."""
    encoder = hpack.Encoder()
    block = BLOCK + b"\x40" + encoder.encode([("x", "y" * 3000)], huffman=False)[1:]
    wire.send(frame(frames.HEADERS, END, 1, block))
    wire.read()
    wire.send(frame(frames.HEADERS, END, 3, BLOCK + b"\xbe" * 10_000))
    assert goaway(wire) is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("data", [b"", frames.PREFACE[:10], frames.PREFACE, frames.PREFACE + b"\0\0"])
def test_whoever_does_not_greet_is_let_go(data: bytes) -> None:
    wire = Wire()
    if data:
        wire.send(data)
    wire.wait(9)
    assert not wire.pipe.ended
    wire.wait(6)
    assert wire.pipe.closed


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        frame(frames.HEADERS, 0, 1, BLOCK),
        frame(frames.HEADERS, END, 1, BLOCK)[:-3],
        frame(frames.PING, 0, 0, b"12345678")[:-1],
    ],
)
def test_what_is_begun_must_be_ended_in_time(wire: Wire, data: bytes) -> None:
    for byte in data:  # as slowly as may be
        wire.send(bytes((byte,)))
    wire.wait(9)
    assert not wire.pipe.ended
    wire.wait(6)
    assert wire.pipe.closed


def test_silence_is_answered_by_a_ping_and_silence_again_is_the_end(wire: Wire) -> None:
    wire.wait(62)
    ping = [one for one in wire.frames() if one[0] == frames.PING]
    assert len(ping) == 1
    wire.send(frame(frames.PING, frames.ACK, 0, ping[0][3]))
    wire.wait(62)
    assert not wire.pipe.closed and any(one[0] == frames.PING for one in wire.frames())
    wire.wait(25)
    assert wire.pipe.closed and not wire.server.connections


def test_a_request_that_does_not_come_and_an_answer_that_nobody_takes(wire: Wire) -> None:
    wire.send(frames.settings_frame({4: 0}))
    wire.send(WHOLE + frame(frames.HEADERS, 4, 3, BLOCK) + frame(frames.DATA, 0, 3, message(b"xy")[:-1]))
    for _ in range(70):
        wire.send(PING)  # it is there, it just does nothing
        wire.wait(1)
    written = wire.frames()
    assert any(one[:3] == (frames.HEADERS, END, 3) for one in written)
    assert (frames.RST_STREAM, 0, 1, b"\0\0\0\x08") in written
    assert not wire.connection.streams


def test_a_peer_that_does_not_read_is_given_up(wire: Wire) -> None:
    wire.pipe.full = True
    number = 1
    while not wire.pipe.ended and number < 200_000:
        wire.send(frame(frames.HEADERS, END, number, fields((b"grpc-timeout", b"?"))))
        number += 2
    assert wire.pipe.ended and wire.pipe.unread < 4 << 20


def test_trickling_bytes_cost_no_object_each(wire: Wire) -> None:
    """A message in frames of one byte is kept in one piece."""
    wire.send(OPEN)
    wire.send(b"".join(frame(frames.DATA, 0, 1, bytes((byte,))) for byte in message(b"z" * 5000)))
    call = wire.connection.streams[1].exchange
    assert len(call._incoming._parts) < 5  # type: ignore[union-attr]
    wire.send(frame(frames.DATA, frames.END_STREAM, 1, b""))
    assert message(b"z" * 5000) in wire.read()


def test_split_is_the_inverse_of_frame() -> None:
    assert split(WHOLE) == [(1, 4, 1, BLOCK), (0, 1, 1, message(b"x"))]
