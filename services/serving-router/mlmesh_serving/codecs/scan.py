"""Reads what is wanted off a serialized `inference.ModelInferRequest`, without making the message of it.

The usual form is read: fields of one-byte tags, values of fewer than 2^28 bytes. Of anything else that Protocol Buffers
allow, the message is made after all, so that the answer is always that of the real parser.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from typing import Final, NamedTuple

from google.protobuf.message import DecodeError
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.inference.grpc_service_pb2 import ModelInferRequest

MAX_FIELDS: Final = 4096
"""Of a request, at its top; each tensor and each parameter is one."""

SMALL: Final = 8 << 10
"""Bytes of a request up to which the real parser is the quicker way."""

_MODEL_NAME: Final = 0x0A  # field 1, length-delimited
_MODEL_VERSION: Final = 0x12
_ID: Final = 0x1A
_RAW_INPUT: Final = 0x3A


class RequestHead(NamedTuple):
    """Which model is asked.

    Attributes:
        model: Its name, as the client wrote it.
        version: As the client wrote it; "": any.
        id: Of the request.
    """

    model: str
    version: str
    id: str


class CutRequest(NamedTuple):
    """A request in three parts.

    Attributes:
        head: Its fields without the id and the raw contents: a serialized request, too.
        id: Its id.
        raw: The raw contents; views of the request's bytes.
    """

    head: bytes
    id: str
    raw: list[memoryview]


def read_head(body: bytes) -> RequestHead:
    """Reads which model a request asks.

    Raises:
        InvalidArgument: It is no such message; or it has more than `MAX_FIELDS` fields.
    """
    found = _fields(body) if len(body) > SMALL else None
    if found is None:
        message = parse(body)
        return RequestHead(message.model_name, message.model_version, message.id)
    values = {tag: (start, stop) for tag, _, start, stop in found}  # the last of several counts
    return RequestHead(*(_text(body[slice(*values.get(tag, (0, 0)))]) for tag in (_MODEL_NAME, _MODEL_VERSION, _ID)))


def cut(body: bytes | memoryview) -> CutRequest | None:
    """Cuts a request with raw contents; None: there are none, or it is of an unusual form.

    Raises:
        InvalidArgument: As `read_head`.
    """
    found = _fields(body)
    if found is None:
        return None
    view = memoryview(body)
    raw, head = [], []
    identifier = ""
    for tag, begin, start, stop in found:
        if tag == _RAW_INPUT:
            raw.append(view[start:stop])
        elif tag == _ID:
            identifier = _text(view[start:stop])
        else:
            head.append(view[begin:stop])
    return CutRequest(b"".join(head), identifier, raw) if raw else None


def parse(body: bytes) -> ModelInferRequest:
    """Makes the message.

    Raises:
        InvalidArgument: It is none.
    """
    try:
        return ModelInferRequest.FromString(body)
    except (DecodeError, ValueError, RecursionError) as error:
        raise _broken() from error


def _fields(body: bytes | memoryview) -> list[tuple[int, int, int, int]] | None:
    """Gives tag, begin, and where the value begins and ends, of each field; None: the form is unusual."""
    found = []
    position, end = 0, len(body)
    try:
        while position < end:
            begin = position
            tag = body[position]
            if tag & 0x87 != 2:  # not length-delimited, or a tag of several bytes
                return None
            size = body[position + 1]
            position += 2
            if size >= 0x80:
                size &= 0x7F
                for shift in (7, 14, 21):
                    byte = body[position]
                    position += 1
                    size |= (byte & 0x7F) << shift
                    if byte < 0x80:
                        break
                else:
                    return None
            start = position
            position += size
            found.append((tag, begin, start, position))
            if len(found) > MAX_FIELDS:
                raise InvalidArgument(f"a request has at most {MAX_FIELDS} tensors and parameters")
    except IndexError:
        return None
    return found if position == end else None


def _text(value: bytes | memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise _broken() from error


def _broken() -> InvalidArgument:
    return InvalidArgument("the request is not a valid message of its type")
