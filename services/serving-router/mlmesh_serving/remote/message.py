"""Changes of a serialized `ModelInferRequest` or `ModelInferResponse` that leave its tensors unread.

Both messages have the model's name in field 1 and its version in field 2, and tensors in field 5. A scanner finds the
fields at the top of a message; what they hold is handed on as it is, unknown fields included.

Source: https://protobuf.dev/programming-guides/encoding/ and the Open Inference Protocol's grpc_service.proto.
"""

from collections.abc import Iterator

from mlmesh_kit.errors import InvalidArgument

_NAME, _VERSION, _ID, _PARAMETERS, _TENSORS = 1, 2, 3, 4, 5
_WANTED_OUTPUTS, _RAW_INPUTS = 6, 7  # of a request
_RAW_OUTPUTS = 6  # of a response
_VARINT, _I64, _LEN, _GROUP, _END_GROUP, _I32 = range(6)
_MAX_VARINT_BYTES = 10
_MAX_SHORT_VARINT_BYTES = 5  # of a tag and of a length
_MAX_LENGTH = (1 << 31) - 1
_MAX_DEPTH = 100


class _Malformed(Exception):
    """The bytes are no protobuf message."""


def renamed(message: bytes, model: str, version: str | None = "") -> bytes:
    """Gives a request or a response with another model name.

    Args:
        message: A serialized ModelInferRequest or ModelInferResponse.
        model: The new name.
        version: The new model_version; empty: none; None: the one that is there stays.

    Raises:
        InvalidArgument: It is no protobuf message.
    """
    parts: list[bytes | memoryview] = [_text(_NAME, model)]
    if version:
        parts.append(_text(_VERSION, version))
    dropped = (_NAME,) if version is None else (_NAME, _VERSION)
    parts += _without(message, dropped)
    return b"".join(parts)


def read_text(message: bytes, number: int) -> str:
    """Gives a string at the top of a message, the last where it is there more than once; empty where it is not there.

    Raises:
        InvalidArgument: It is no protobuf message, or the string is no UTF-8.
    """
    found = b""
    for at, wire, _, value, end in _fields(message):
        if at == number and wire == _LEN:
            found = message[value:end]
    try:
        return found.decode()
    except UnicodeDecodeError as error:
        raise _refusal() from error


def without_wanted_outputs(request: bytes) -> bytes:
    """Gives a ModelInferRequest that asks for all outputs.

    Raises:
        InvalidArgument: It is no protobuf message.
    """
    return b"".join(_without(request, (_WANTED_OUTPUTS,)))


def next_request(answer: bytes, request: bytes, *, last: bool) -> bytes:
    """Makes the request to the next stage of what the stage before it answered: its outputs are the inputs.

    A tensor is written alike in both messages; only the raw contents have another field number.

    Args:
        answer: A serialized ModelInferResponse.
        request: The client's ModelInferRequest: its id, its parameters, and the outputs that it wants.
        last: Whether the stage is the last one: it alone is asked for the outputs that the client wants.

    Raises:
        InvalidArgument: One of them is no protobuf message.
    """
    kept = (_NAME, _ID, _PARAMETERS, _WANTED_OUTPUTS) if last else (_NAME, _ID, _PARAMETERS)
    parts: list[bytes | memoryview] = []
    view = memoryview(request)
    for number, _, start, _, end in _fields(request):
        if number in kept:
            parts.append(view[start:end])
    view = memoryview(answer)
    for number, wire, start, value, end in _fields(answer):
        if number == _TENSORS:
            parts.append(view[start:end])
        elif number == _RAW_OUTPUTS and wire == _LEN:
            parts += (_head(_RAW_INPUTS, end - value), view[value:end])
    return b"".join(parts)


def _without(message: bytes, numbers: tuple[int, ...]) -> list[bytes | memoryview]:
    """Gives what lies between the strings and messages of these numbers."""
    view = memoryview(message)
    parts: list[bytes | memoryview] = []
    since = 0
    for number, wire, start, _, end in _fields(message):
        if number in numbers and wire == _LEN:  # of another wire type it is an unknown field
            if start > since:
                parts.append(view[since:start])
            since = end
    if since < len(message):
        parts.append(view[since:])
    return parts


def _fields(message: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Gives number, wire type, start, start of the value and end of each field at the top."""
    try:
        position, size = 0, len(message)
        while position < size:
            start = position
            number, wire, position = _tag(message, position)
            if wire == _LEN:
                length, position = _varint(message, position, _MAX_SHORT_VARINT_BYTES)
                end = position + length
                if length > _MAX_LENGTH or end > size:
                    raise _Malformed
            else:
                end = _skipped(message, position, number, wire, 0)
            yield number, wire, start, position, end
            position = end
    except (_Malformed, IndexError) as error:
        raise _refusal() from error


def _skipped(message: bytes, position: int, number: int, wire: int, depth: int) -> int:
    """Gives the end of a value."""
    if wire == _VARINT:
        return _varint(message, position, _MAX_VARINT_BYTES)[1]
    if wire == _LEN:
        length, position = _varint(message, position, _MAX_SHORT_VARINT_BYTES)
        end = position + length
    elif wire == _I64:
        end = position + 8
    elif wire == _I32:
        end = position + 4
    elif wire == _GROUP and depth < _MAX_DEPTH:
        while True:
            inner, kind, position = _tag(message, position)
            if kind == _END_GROUP:
                if inner != number:
                    raise _Malformed
                return position
            position = _skipped(message, position, inner, kind, depth + 1)
    else:
        raise _Malformed
    if end > len(message):
        raise _Malformed
    return end


def _tag(message: bytes, position: int) -> tuple[int, int, int]:
    tag, position = _varint(message, position, _MAX_SHORT_VARINT_BYTES)
    number = tag >> 3
    if not number or tag >= 1 << 32:
        raise _Malformed
    return number, tag & 7, position


def _varint(message: bytes, position: int, max_bytes: int) -> tuple[int, int]:
    byte = message[position]
    if byte < 0x80:  # as most are
        return byte, position + 1
    value = byte & 0x7F
    for index in range(1, max_bytes):
        byte = message[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _Malformed


def _text(number: int, text: str) -> bytes:
    data = text.encode()
    return _head(number, len(data)) + data


def _head(number: int, length: int) -> bytes:
    """Writes the tag and the length of a string or a message."""
    head = bytearray([number << 3 | _LEN])
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


def _refusal() -> InvalidArgument:
    return InvalidArgument("the request is not a valid message of its type")
