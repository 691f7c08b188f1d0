"""The scalars in TensorFlow's `Event` messages, decoded by hand: five fields of a format that has hundreds.

Messages and fields as in tensorflow/core/util/event.proto and tensorflow/core/framework/{summary,tensor}.proto:
Event {wall_time 1, summary 5}, Summary {value 1}, Value {tag 1, simple_value 2, tensor 8}, TensorProto {dtype 1,
tensor_shape 2, tensor_content 4, float_val 5, double_val 6, int_val 7, int64_val 10, half_val 13}.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _BYTES = 0, 2
_SIZES = {1: 8, 5: 4}
_BFLOAT16 = 14
# dtype → the field of elements that are not in tensor_content, and the format of one that is.
_ELEMENTS = {1: (5, "<f"), 2: (6, "<d"), 3: (7, "<i"), 9: (10, "<q"), 19: (13, "<e"), _BFLOAT16: (13, "<H")}
_EXACT = (2, 3, 9)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of a summary.

    Attributes:
        seconds: When it was written, since 1970.
        tag: Its name in the file.
        value: As text; a 32-bit number with as many digits as tell it from its neighbours.
    """

    seconds: float
    tag: str
    value: str


def read_scalars(event: bytes) -> list[Scalar]:
    """Decodes an event.

    Raises:
        ValueError: It is no such message.
    """
    seconds = math.nan
    summaries = []
    for field, _, value in _fields(event):
        if field == 1 and isinstance(value, bytes) and len(value) == 8:
            seconds = struct.unpack("<d", value)[0]
        elif field == 5 and isinstance(value, bytes):
            summaries.append(value)
    found = []
    for summary in summaries:
        for field, _, value in _fields(summary):
            if field == 1 and isinstance(value, bytes) and (scalar := _scalar(value, seconds)) is not None:
                found.append(scalar)
    return found


def _scalar(message: bytes, seconds: float) -> Scalar | None:
    tag, text = b"", None
    for field, _, value in _fields(message):
        if not isinstance(value, bytes):
            continue
        if field == 1:
            tag = value
        elif field == 2 and len(value) == 4:
            text = _short(struct.unpack("<f", value)[0])
        elif field == 8:
            text = _tensor(value)
    return None if text is None else Scalar(seconds, tag.decode("utf-8", "replace"), text)


def _tensor(message: bytes) -> str | None:
    """Gives the only element of a tensor; None: it has another number of them, or they are no numbers."""
    dtype, content = 0, b""
    elements: dict[int, int | bytes] = {}
    for field, kind, value in _fields(message):
        if field == 1 and isinstance(value, int):
            dtype = value
        elif field == 2 and isinstance(value, bytes):
            if not _is_single(value):
                return None
        elif field == 4 and isinstance(value, bytes):
            content = value
        elif kind != _BYTES or value:
            elements[field] = value
    if dtype not in _ELEMENTS:
        return None
    field, form = _ELEMENTS[dtype]
    raw = content or _raw(elements.get(field, 0), form)
    if len(raw) != struct.calcsize(form):
        return None
    if dtype == _BFLOAT16:
        raw, form = b"\0\0" + raw, "<f"
    number = struct.unpack(form, raw)[0]
    return str(number) if dtype in _EXACT else _short(number)


def _raw(element: int | bytes, form: str) -> bytes:
    """Gives an element as it would be in tensor_content; one that is left out is 0."""
    size = struct.calcsize(form)
    if isinstance(element, int):
        return (element & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    if form in ("<f", "<d"):
        return element
    packed, end = _varint(element, 0)
    return _raw(packed, form) if end == len(element) else b""


def _is_single(shape: bytes) -> bool:
    """Tells whether a TensorShapeProto {dim 2 {size 1}} is of one element."""
    for field, _, dimension in _fields(shape):
        if field == 2 and isinstance(dimension, bytes):
            sizes = [size for number, _, size in _fields(dimension) if number == 1]
            if sizes != [1]:
                return False
    return True


def _short(number: float) -> str:
    """Writes a number that was 32 bits wide (or fewer) with the fewest digits that give it back."""
    for digits in (6, 7, 8):
        text = f"{number:.{digits}g}"
        if not math.isfinite(number) or _as_32(float(text)) == number:
            return text
    return f"{number:.9g}"


def _as_32(number: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:  # rounded up beyond the largest
        return math.inf


def _fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Gives the fields of a message: number, wire type, and an int for a varint, else the bytes.

    Raises:
        ValueError: It is no message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:  # groups are long gone
            raise ValueError("wire type")
        if at + size > len(message):
            raise ValueError("cut off")
        yield number, kind, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for index in range(10):
        if at + index >= len(message):
            break
        byte = message[at + index]
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, at + index + 1
    raise ValueError("varint")
