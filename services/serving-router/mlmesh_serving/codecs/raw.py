"""Raw tensor bytes: little endian, row major; BYTES with a length of 4 bytes before each element.

Source: Open Inference Protocol, "Tensor Data" and the binary tensor data extension.
"""

import struct
from typing import Any

import numpy as np
from mlmesh_kit.errors import InvalidArgument
from numpy.typing import NDArray

from mlmesh_serving.tensor import Tensor, bytes_array

LARGE = 16 << 10
"""Bytes of a tensor from which on it is not copied where it can be helped."""

_LENGTH = struct.Struct("<I")


def decode_raw(
    data: bytes | memoryview, dtype: np.dtype[Any], shape: list[int], count: int, field: str
) -> NDArray[Any]:
    """Views the bytes as an array, without a copy (but for BYTES).

    Args:
        data: The tensor's bytes.
        dtype: Of the declared datatype.
        shape: As declared.
        count: Elements of that shape.
        field: Where the client wrote it.

    Raises:
        InvalidArgument: The bytes do not fit the shape.
    """
    if dtype.kind == "O":
        return bytes_array(_split(data, count, field), shape)
    expected = count * dtype.itemsize
    if len(data) != expected:
        raise InvalidArgument(f"must be {expected} bytes for the shape {shape}, got {len(data)}", field=field)
    array = np.frombuffer(data, dtype=dtype)
    if not array.flags.aligned:  # behind a JSON part of any length; compiled code wants it aligned
        array = array.copy()
    return array.reshape(shape)


def _split(data: bytes | memoryview, count: int, field: str) -> list[bytes]:
    items: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        if position + _LENGTH.size > end:
            raise InvalidArgument("ends within the length of an element", field=field)
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if len(items) == count:
            raise InvalidArgument(f"must hold {count} elements for its shape, got more", field=field)
        if position + length > end:
            raise InvalidArgument(f"declares an element of {length} bytes and ends after {end - position}", field=field)
        items.append(bytes(data[position : position + length]))
        position += length
    if len(items) != count:
        raise InvalidArgument(f"must hold {count} elements for its shape, got {len(items)}", field=field)
    return items


def encode_raw(tensor: Tensor) -> bytes | memoryview:
    """Gives a tensor's bytes; of a large one a view of them."""
    if tensor.data.dtype.kind == "O":
        parts: list[bytes] = []
        for item in tensor.data.ravel():
            parts += (_LENGTH.pack(len(item)), item)
        return b"".join(parts)
    if tensor.data.nbytes < LARGE:
        return tensor.data.tobytes()
    return np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8).data
