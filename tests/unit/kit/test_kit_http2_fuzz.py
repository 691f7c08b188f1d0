"""Whatever bytes come: the server raises nothing, keeps its bounds, and ends what is not ended."""

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.http2 import frames
from mlmesh_kit.http2.frames import frame
from mlmesh_kit.http2.header_blocks import HeaderDecoder, encode
from mlmesh_kit.http2.settings import Limits
from support.wire import REQUEST, Wire, message, split

LIMITS = Limits(streams=8, message=40_000, gathered=80_000, connection_window=200_000, frame=100_000)
BLOCK = encode([(name.encode(), value.encode()) for name, value in REQUEST])
SESSION = b"".join(
    (
        frames.PREFACE,
        frames.settings_frame({3: 100, 4: 70_000, 5: 20_000}),
        frames.window_update(0, 100_000),
        frame(frames.HEADERS, frames.END_HEADERS, 1, BLOCK),
        frame(frames.DATA, frames.END_STREAM, 1, message(b"x" * 100)),
        frame(frames.HEADERS, frames.HAS_PRIORITY, 3, b"\0\0\0\1\x10" + BLOCK[:30]),
        frame(frames.CONTINUATION, frames.END_HEADERS, 3, BLOCK[30:]),
        frame(frames.DATA, frames.PADDED, 3, b"\x03" + message(b"y" * 3000)[:1000] + b"\0\0\0"),
        frame(frames.PING, 0, 0, b"12345678"),
        frame(frames.DATA, 0, 3, message(b"y" * 3000)[1000:]),
        frame(frames.HEADERS, 5, 3, encode([(b"x-end", b"1")])),
        frame(frames.HEADERS, 4, 5, b"\x40\x01a\x01b" + BLOCK),
        frame(frames.RST_STREAM, 0, 5, b"\0\0\0\x08"),
        frame(frames.HEADERS, 4, 7, b"\xbe" + BLOCK),
        frame(frames.DATA, 0, 7, b""),
        frames.window_update(7, 10),
        frame(frames.DATA, frames.END_STREAM, 7, message(b"z")),
        frames.goaway(0, 0, "bye"),
    )
)


@pytest.fixture(autouse=True)
def no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What escapes the protocol is logged as an error before the connection is ended."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def _wait_or_answer(data: bytes, call: Any) -> Any:
    return data if len(data) % 3 else asyncio.sleep(30, data)


def feed(data: bytes, cuts: list[int]) -> None:
    """Gives the server all of it, in pieces, and looks at what it keeps."""
    wire = Wire({"/Echo/Echo": _wait_or_answer}, LIMITS)
    edges = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    written = bytearray()
    for begin, end in itertools.pairwise(edges):
        wire.send(data[begin:end])
        written += wire.read()
        bounded(wire)
    split(bytes(written))  # whole frames, whatever came
    wire.wait(120)
    assert not wire.server.connections, "nobody said anything for two minutes"
    assert wire.server.calls == 0
    wire.close()


def bounded(wire: Wire) -> None:
    connection = wire.connection
    assert len(connection._buffer) <= LIMITS.header_block + 9
    assert len(connection.streams) <= LIMITS.streams
    assert len(connection._gone) <= 256
    assert connection._window >= 0
    assert connection._window + connection._unacknowledged <= LIMITS.connection_window
    gathered = sum(stream.exchange._incoming.size for stream in connection.streams.values())
    assert gathered <= LIMITS.gathered + LIMITS.streams * (LIMITS.window + 5)


CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([0, 24, 51, 200]), CUTS)
def test_any_bytes(noise: bytes, after: int, cuts: list[int]) -> None:
    feed(SESSION[:after] + noise, cuts)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(24, len(SESSION) - 1), st.binary(min_size=0, max_size=3), st.booleans()), max_size=6
    ),
    CUTS,
)
def test_a_sound_session_with_bytes_changed_put_in_and_left_out(
    changes: list[tuple[int, bytes, bool]], cuts: list[int]
) -> None:
    data = bytearray(SESSION)
    for at, patch, grow in changes:
        data[at : at if grow else at + max(1, len(patch))] = patch
    feed(bytes(data), cuts)


FRAMES = st.builds(
    frame,
    st.integers(0, 12),
    st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 0x20, 0x25, 0x2D, 255]),
    st.sampled_from([0, 1, 2, 3, 5, 7, 9, 1000, (1 << 31) - 1]),
    st.one_of(
        st.binary(max_size=30),
        st.just(BLOCK),
        st.just(b"\0\0\0\0\1"),
        st.just(message(b"abcd")),
        st.sampled_from([b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\0\4\0\0\0\0", b"\0\4\x7f\xff\xff\xff"]),
        st.binary(max_size=20).map(lambda data: BLOCK + data),
        st.integers(0, 90_000).map(lambda size: b"\0" + size.to_bytes(4, "big") + b"a" * (size // 2)),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(FRAMES, max_size=30), CUTS)
def test_any_frames(found: list[bytes], cuts: list[int]) -> None:
    feed(frames.PREFACE + frames.settings_frame({}) + b"".join(found), cuts)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=200)), max_size=8), max_size=6)
)
def test_header_lists_are_written_as_they_are_read(lists: list[list[tuple[bytes, bytes]]]) -> None:
    decoder = HeaderDecoder(1 << 20)
    for pairs in lists * 2:
        assert decoder.decode(encode(pairs)).pairs == pairs
