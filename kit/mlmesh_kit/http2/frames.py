"""Frames of HTTP/2 as bytes (RFC 9113, sections 4 and 6)."""

from collections.abc import Mapping
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends before its first frame."""

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x01
ACK: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
HAS_PRIORITY: Final = 0x20

FRAME_HEADER: Final = Struct(">BHBBI")
"""High byte and low bytes of the length, type, flags, stream."""
HEADER_BYTES: Final = 9
_UINT32: Final = Struct(">I")
_SETTING: Final = Struct(">HI")
_TWO_UINT32: Final = Struct(">II")

LARGEST_WINDOW: Final = (1 << 31) - 1
LARGEST_STREAM: Final = (1 << 31) - 1
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME: Final = 16_384
LARGEST_FRAME: Final = (1 << 24) - 1

pack_header = FRAME_HEADER.pack


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Gives a frame; the payload is at most 2^24-1 bytes."""
    size = len(payload)
    return pack_header(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def header_frames(stream: int, block: bytes, *, end_stream: bool, largest: int) -> bytes:
    """Gives a header block as HEADERS and, where a frame is too small for it, CONTINUATION.

    Args:
        stream: Its id.
        block: Encoded by HPACK.
        end_stream: Whether nothing follows on the stream.
        largest: Payload that the peer takes in one frame, in bytes.
    """
    end = END_STREAM if end_stream else 0
    if len(block) <= largest:
        return frame(HEADERS, end | END_HEADERS, stream, block)
    parts = [frame(HEADERS, end, stream, block[:largest])]
    for at in range(largest, len(block), largest):
        flags = END_HEADERS if at + largest >= len(block) else 0
        parts.append(frame(CONTINUATION, flags, stream, block[at : at + largest]))
    return b"".join(parts)


def settings_frame(values: Mapping[int, int]) -> bytes:
    """Gives SETTINGS with these values, by identifier."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Gives the (identifier, value) pairs of a payload of 6 bytes each, in order."""
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, increment: int) -> bytes:
    """Gives WINDOW_UPDATE; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _UINT32.pack(increment))


def rst_stream(stream: int, code: int) -> bytes:
    """Gives RST_STREAM."""
    return frame(RST_STREAM, 0, stream, _UINT32.pack(code))


def goaway(last_stream: int, code: int, message: str = "") -> bytes:
    """Gives GOAWAY; the message is for the peer's log."""
    return frame(GOAWAY, 0, 0, _TWO_UINT32.pack(last_stream, code) + message.encode()[:200])


def read_uint32(payload: bytes) -> int:
    """Gives the number in the first four bytes."""
    value: int = _UINT32.unpack_from(payload)[0]
    return value
