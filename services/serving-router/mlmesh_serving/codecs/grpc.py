"""ModelInferRequest to tensors, tensors to ModelInferResponse."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.inference import grpc_service_pb2 as oip

from mlmesh_serving.codecs import scan
from mlmesh_serving.codecs.raw import LARGE, decode_raw, encode_raw
from mlmesh_serving.tensor import (
    UNSERVED_PARAMETERS,
    Limits,
    Tensor,
    bytes_array,
    check_datatype,
    check_names,
    check_shape,
)

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read_request(body: bytes | memoryview) -> tuple[oip.ModelInferRequest, Sequence[bytes | memoryview]]:
    """Parses a request; gives its raw contents apart: of a large one they are views of its bytes, and never copied.

    Raises:
        InvalidArgument: It is no such message.
    """
    if len(body) > scan.SMALL:
        found = scan.cut(body)
        if found is not None:
            request = scan.parse(found.head)
            request.id = found.id
            return request, found.raw
    request = scan.parse(bytes(body))
    return request, request.raw_input_contents


def decode_request(request: oip.ModelInferRequest, raw: Sequence[bytes | memoryview], limits: Limits) -> list[Tensor]:
    """Gives the request's tensors.

    Args:
        request: Its own raw contents are passed over.
        raw: The raw contents; empty: the contents are typed.
        limits: How large it may be.

    Raises:
        InvalidArgument: A tensor's shape, datatype and contents do not agree; the message names it.
    """
    check_names([tensor.name for tensor in request.inputs], limits)
    if raw and len(raw) != len(request.inputs):
        raise InvalidArgument(
            f"must hold one entry for each of the {len(request.inputs)} inputs, got {len(raw)}",
            field="raw_input_contents",
        )
    tensors = []
    for index, declared in enumerate(request.inputs):
        field = f"inputs[{index}] ({declared.name})"
        _check_parameters(declared, field)
        dtype = check_datatype(declared.datatype, field)
        shape = list(declared.shape)
        count = check_shape(shape, field, limits)
        if raw:
            if declared.HasField("contents"):
                raise InvalidArgument("must be empty beside raw_input_contents", field=f"{field}.contents")
            data = decode_raw(raw[index], dtype, shape, count, f"raw_input_contents[{index}] ({declared.name})")
        else:
            data = _typed(declared, dtype, shape, count, field)
        tensors.append(Tensor(declared.name, data))
    return tensors


def wanted_outputs(request: oip.ModelInferRequest) -> list[str]:
    """Gives the names of the outputs that a request asks for; none: all.

    Raises:
        InvalidArgument: They are asked for in a way that is not served.
    """
    for index, output in enumerate(request.outputs):
        _check_parameters(output, f"outputs[{index}] ({output.name})")
    return [output.name for output in request.outputs]


def _check_parameters(declared: Any, field: str) -> None:
    """Parameters are hints, but for these: to pass over them would be a wrong answer."""
    for name in UNSERVED_PARAMETERS:
        if name in declared.parameters:
            raise InvalidArgument("is not served", field=f"{field}.parameters.{name}")


def _typed(declared: Any, dtype: np.dtype[Any], shape: list[int], count: int, field: str) -> Any:
    where = _CONTENTS.get(declared.datatype)
    if where is None:
        raise InvalidArgument(f"{declared.datatype} must come in raw_input_contents", field=f"{field}.datatype")
    values = getattr(declared.contents, where)
    others = [other.name for other, _ in declared.contents.ListFields() if other.name != where]
    if others:
        raise InvalidArgument(
            f"{declared.datatype} must come in {where}, got {', '.join(others)}", field=f"{field}.contents"
        )
    if len(values) != count:
        raise InvalidArgument(
            f"must hold {count} elements for the shape {shape}, got {len(values)}", field=f"{field}.contents.{where}"
        )
    if dtype.kind == "O":
        return bytes_array(list(values), shape)
    array = np.array(values)
    cast = array.astype(dtype)
    if array.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise InvalidArgument(f"holds values beyond {declared.datatype}", field=f"{field}.contents.{where}")
    return cast.reshape(shape)


def encode_response(
    request: oip.ModelInferRequest, model_version: str, outputs: Sequence[Tensor], *, raw: bool
) -> list[bytes | memoryview]:
    """Serializes an answer, in parts: raw where the request was raw, typed where it was typed (but FP16, which has no
    typed form).
    """
    response = oip.ModelInferResponse(model_name=request.model_name, model_version=model_version, id=request.id)
    raw = raw or any(output.datatype == "FP16" for output in outputs)
    contents: list[bytes | memoryview] = []
    for output in outputs:
        declared = response.outputs.add(name=output.name, datatype=output.datatype, shape=output.data.shape)
        if raw:
            contents.append(encode_raw(output))
        else:
            getattr(declared.contents, _CONTENTS[output.datatype]).extend(output.data.ravel().tolist())
    if sum(map(len, contents)) < LARGE:
        response.raw_output_contents.extend(bytes(part) for part in contents)
        return [response.SerializeToString()]
    parts: list[bytes | memoryview] = [response.SerializeToString()]
    for part in contents:  # a message is the sum of its pieces: these are written behind it without a copy
        parts += (_RAW_OUTPUT + _varint(len(part)), part)
    return parts


_RAW_OUTPUT: Final = b"\x32"  # field 6, length-delimited


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
