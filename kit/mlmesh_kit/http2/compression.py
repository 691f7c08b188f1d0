"""Compressed messages (gRPC over HTTP/2: Message-Encoding)."""

import zlib
from typing import Final

from mlmesh_kit.errors import Internal, ResourceExhausted

_WINDOW_BITS: Final = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}  # deflate is zlib's format (RFC 1950)

_SMALL: Final = 64 << 10  # compressed, in bytes
_SMALL_MESSAGE: Final = 256 << 10


def decompress_small(encoding: bytes, data: bytes, limit: int) -> bytes | None:
    """Does as `decompress` where that takes well below a millisecond; None: it may take longer."""
    if len(data) > _SMALL:
        return None
    try:
        return decompress(encoding, data, min(limit, _SMALL_MESSAGE))
    except ResourceExhausted:
        if limit <= _SMALL_MESSAGE:
            raise
        return None


def decompress(encoding: bytes, data: bytes, limit: int) -> bytes:
    """Gives the message that was compressed.

    Args:
        encoding: gzip or deflate.
        data: Compressed.
        limit: Most bytes that the message may have.

    Raises:
        ResourceExhausted: It has more; nothing beyond the limit is decompressed.
        Internal: The data are not of this encoding.
    """
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise Internal(f"the message is not {encoding.decode()}") from error
    if len(message) > limit:
        raise ResourceExhausted(f"the message has more than {limit} bytes once decompressed")
    if not inflater.eof or inflater.unused_data:
        raise Internal(f"the message is not {encoding.decode()}: it ends too early or too late")
    return message
