"""Header blocks of gRPC's answers (gRPC over HTTP/2: Responses)."""

from typing import Final

import grpc

from mlmesh_kit.http2.header_blocks import Field, encode
from mlmesh_kit.http2.metadata import Metadata, encode_binary, encode_metadata
from mlmesh_kit.http2.request_head import ACCEPTED_ENCODINGS

STATUS_DETAILS: Final = b"grpc-status-details-bin"

_HTTP_OK: Final = b"\x88"  # `:status: 200`, from the static table
_CONTENT_TYPE: Final = encode([(b"content-type", b"application/grpc")])

RESPONSE_HEAD: Final = _HTTP_OK + _CONTENT_TYPE
"""Before the first message of an answer."""
TRAILERS_OK: Final = encode([(b"grpc-status", b"0")])
"""After the last."""
NOT_GRPC: Final = encode([(b":status", b"415"), (b"content-length", b"0")])
"""For a request that is not gRPC."""


def trailers(code: grpc.StatusCode, message: str = "", details: bytes | None = None, metadata: Metadata = ()) -> bytes:
    """Gives the block that ends an answer.

    Args:
        code: How the call ended.
        message: For the caller.
        details: A `google.rpc.Status`, serialized.
        metadata: Trailing metadata; bytes under names that end in `-bin`.

    Raises:
        InvalidArgument: It cannot be sent.
    """
    fields: list[Field] = [(b"grpc-status", str(code.value[0]).encode())]
    if message:
        fields.append((b"grpc-message", percent_encode(message)))
    if details is not None:
        fields.append((STATUS_DETAILS, encode_binary(details)))
    if code is grpc.StatusCode.UNIMPLEMENTED:
        fields.append((b"grpc-accept-encoding", ACCEPTED_ENCODINGS))
    return encode([*fields, *encode_metadata(metadata)])


def trailers_only(code: grpc.StatusCode, message: str, details: bytes | None = None) -> bytes:
    """Gives the block of an answer that has no message: headers and trailers in one."""
    return RESPONSE_HEAD + trailers(code, message, details)


def percent_encode(message: str) -> bytes:
    """Writes a message as `grpc-message` has it: UTF-8, what is not printable ASCII and `%` as `%XX`."""
    raw = message.encode(errors="replace")
    if raw.isascii() and message.isprintable() and "%" not in message:
        return raw
    return b"".join(b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in raw)
