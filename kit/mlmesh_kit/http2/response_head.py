"""The header lists of a response, read by gRPC's rules (gRPC over HTTP/2: Responses)."""

import contextlib
from typing import Final
from urllib.parse import unquote_to_bytes

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from mlmesh_kit.errors import InvalidArgument, ServiceError, from_status
from mlmesh_kit.http2.header_blocks import Fields
from mlmesh_kit.http2.metadata import decode_binary

_OF_HTTP: Final = {
    b"400": grpc.StatusCode.INTERNAL,
    b"401": grpc.StatusCode.UNAUTHENTICATED,
    b"403": grpc.StatusCode.PERMISSION_DENIED,
    b"404": grpc.StatusCode.UNIMPLEMENTED,
    b"429": grpc.StatusCode.UNAVAILABLE,
    b"502": grpc.StatusCode.UNAVAILABLE,
    b"503": grpc.StatusCode.UNAVAILABLE,
    b"504": grpc.StatusCode.UNAVAILABLE,
}
"""For answers without `grpc-status`: of a proxy, or of a server that is none of gRPC."""


class ResponseHead:
    """Header fields before a body, behind it, or both in one.

    Attributes:
        http_status: Of HTTP; empty in trailers.
        content_type: As sent.
        code: Value of `grpc-status`; None: there is none, or it is no number.
    """

    __slots__ = ("_details", "_message", "code", "content_type", "http_status")

    def __init__(self, fields: Fields) -> None:
        self.http_status = self.content_type = self._message = self._details = b""
        self.code: int | None = None
        for name, value in fields.pairs:
            if name == b"grpc-status":
                self.code = int(value) if value.isdigit() and len(value) < 10 else None
            elif name == b"grpc-message":
                self._message = value
            elif name == b"grpc-status-details-bin":
                self._details = value
            elif name == b":status":
                self.http_status = value
            elif name == b"content-type":
                self.content_type = value

    @property
    def is_informational(self) -> bool:
        """Whether the real one is still to come (1xx)."""
        return len(self.http_status) == 3 and self.http_status.startswith(b"1")

    @property
    def begins_grpc(self) -> bool:
        """Whether messages of gRPC follow."""
        return self.http_status == b"200" and self.content_type.startswith(b"application/grpc")

    def error(self) -> ServiceError:
        """Gives the error that it says, or that it is."""
        if self.code is None:
            return from_status(self._foreign())
        message = unquote_to_bytes(self._message).decode(errors="replace")
        status = status_pb2.Status(code=self.code, message=message)
        if self._details:
            with contextlib.suppress(DecodeError, InvalidArgument):  # code and message say enough
                status.details.extend(status_pb2.Status.FromString(b"".join(decode_binary(self._details))).details)
        return from_status(status)

    def _foreign(self) -> status_pb2.Status:
        code = _OF_HTTP.get(self.http_status, grpc.StatusCode.UNKNOWN)
        text = f"the server behind answered with HTTP status {self.http_status.decode('latin-1')[:10]}, not by gRPC"
        if self.http_status in {b"", b"200"}:
            text = "the server behind answered without a status of gRPC"
        return status_pb2.Status(code=code.value[0], message=text)


def read_response(fields: Fields) -> ResponseHead:
    """Reads a header list as a response's, once."""
    if isinstance(fields.parsed, ResponseHead):
        return fields.parsed
    fields.parsed = head = ResponseHead(fields)
    return head
