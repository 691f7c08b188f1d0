"""The header list of a request: checked by HTTP's rules (RFC 9113, section 8), read by gRPC's."""

import re
from typing import Final

from mlmesh_kit.errors import InvalidArgument, ServiceError, Unimplemented
from mlmesh_kit.http2.faults import ErrorCode, StreamFault
from mlmesh_kit.http2.header_blocks import Field, Fields
from mlmesh_kit.http2.metadata import decode_binary
from mlmesh_kit.identity import USER_HEADER, Caller

ACCEPTED_ENCODINGS: Final = b"identity, deflate, gzip"

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_USER: Final = USER_HEADER.encode()
_TRACE: Final = frozenset({b"traceparent", b"tracestate"})
_RESERVED: Final = frozenset({b"te", b"content-type", b"content-length", b"user-agent"})
_RESERVED_PREFIXES: Final = (b":", b"grpc-")


class RequestHead:
    """A request before its body.

    Attributes:
        fields: All of it.
        method: `POST` for gRPC.
        path: `/package.Service/Method`.
        content_type: As sent.
        content_length: Bytes that the body will have; None: not said.
        timeout: Seconds that the client gives; None: any.
        encoding: Of messages that are compressed; empty: none are.
        users: Values of the user's header.
        trace: The headers that carry a trace.
        refusal: Why no method can serve it; None: it is sound.
        caller: Left here by who worked it out of `users`.
    """

    __slots__ = (
        "caller",
        "content_length",
        "content_type",
        "encoding",
        "fields",
        "method",
        "path",
        "refusal",
        "timeout",
        "trace",
        "users",
    )

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.method = self.path = self.content_type = self.encoding = b""
        self.content_length: int | None = None
        self.timeout: float | None = None
        self.users: list[str] = []
        self.trace: list[tuple[str, str]] = []
        self.refusal: ServiceError | None = None
        self.caller: Caller | None = None
        self._read(fields.pairs)

    def _read(self, pairs: list[Field]) -> None:
        pseudo: dict[bytes, bytes] = {}
        for name, value in check_fields(pairs, pseudo):
            if name == b"content-type":
                self.content_type = value
            elif name == b"grpc-timeout":
                self._read_timeout(value)
            elif name == b"grpc-encoding":
                self._read_encoding(value)
            elif name == b"content-length":
                self._read_length(value)
            elif name == _USER:
                self.users.append(value.decode("latin-1"))
            elif name in _TRACE:
                self.trace.append((name.decode(), value.decode("latin-1")))
        if pseudo.keys() - _PSEUDO or not all(pseudo.get(name) for name in (b":method", b":scheme", b":path")):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "pseudo-header fields are missing or unknown")
        self.method, self.path = pseudo[b":method"], pseudo[b":path"]

    def _read_timeout(self, value: bytes) -> None:
        found = _TIMEOUT.fullmatch(value)
        if found:
            self.timeout = int(found[1]) * _SECONDS[found[2]]
        else:
            self.refusal = InvalidArgument("at most eight digits and one of H, M, S, m, u, n", field="grpc-timeout")

    def _read_encoding(self, value: bytes) -> None:
        if value in {b"gzip", b"deflate"}:
            self.encoding = value
        elif value != b"identity":
            name = value.decode("latin-1")[:40]
            self.refusal = Unimplemented(f"grpc-encoding {name!r} is not served; {ACCEPTED_ENCODINGS.decode()} are")

    def _read_length(self, value: bytes) -> None:
        if not value.isdigit() or len(value) > 18 or self.content_length not in {None, int(value)}:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length is no length")
        self.content_length = int(value)

    def metadata(self) -> list[tuple[str, str | bytes]]:
        """Gives the metadata that the client set: text, or bytes under a name that ends in `-bin`."""
        found: list[tuple[str, str | bytes]] = []
        for name, value in self.fields.pairs:
            if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
                continue
            if name.endswith(b"-bin"):
                found += ((name.decode(), one) for one in decode_binary(value))
            else:
                found.append((name.decode(), value.decode("latin-1")))
        return found


def read_request(fields: Fields) -> RequestHead:
    """Reads a header list as a request's, once.

    Raises:
        StreamFault: It is malformed.
    """
    if isinstance(fields.parsed, RequestHead):
        return fields.parsed
    fields.parsed = head = RequestHead(fields)
    return head


def check_fields(pairs: list[Field], pseudo: dict[bytes, bytes]) -> list[Field]:
    """Checks names and values, gathers the pseudo-header fields into `pseudo` and gives the others.

    Raises:
        StreamFault: The list is malformed.
    """
    regular: list[Field] = []
    for name, value in pairs:
        if _BAD_VALUE.search(value):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a field value with NUL, CR, LF or space around it")
        if name.startswith(b":"):
            if regular or name in pseudo:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a pseudo-header field twice, or behind others")
            pseudo[name] = value
            continue
        if not _NAME.fullmatch(name) or name in _HOP_BY_HOP or (name == b"te" and value != b"trailers"):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a field that HTTP/2 does not have")
        regular.append((name, value))
    return regular


def check_trailers(fields: Fields) -> None:
    """Checks a header list that follows a body.

    Raises:
        StreamFault: It is malformed.
    """
    pseudo: dict[bytes, bytes] = {}
    check_fields(fields.pairs, pseudo)
    if pseudo:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "pseudo-header fields in trailers")
