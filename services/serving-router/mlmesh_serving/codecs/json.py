"""REST v2 bodies to tensors and back, with the binary tensor data extension; REST v1 bodies too."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from mlmesh_kit.errors import InvalidArgument
from numpy.typing import NDArray

from mlmesh_serving.codecs.large_json import LARGE, Numbers, parse_large
from mlmesh_serving.codecs.raw import decode_raw, encode_raw
from mlmesh_serving.tensor import Limits, Tensor, as_tensor, bytes_array, check_datatype, check_names, check_shape

MAX_OUTPUTS = 1024


def parse(body: bytes | memoryview) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        InvalidArgument: It is none; NaN and Infinity are not JSON either.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"must be JSON: {error}", field="body") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"must be a JSON object, got {type(value).__name__}", field="body")
    return value


def parse_v2(body: bytes | memoryview) -> dict[str, Any]:
    """Reads the JSON part of a v2 request; errors as `parse`."""
    found = parse_large(body) if len(body) >= LARGE else None
    return parse(body) if found is None else found


def decode_v2(body: dict[str, Any], binary: memoryview, limits: Limits) -> list[Tensor]:
    """Gives the tensors of a v2 request.

    Args:
        body: The JSON part, as `parse_v2` gives it.
        binary: What follows it, for tensors with `binary_data_size`.
        limits: How large they may be.

    Raises:
        InvalidArgument: The body is not of the protocol's form, or a tensor contradicts itself.
    """
    declared = body.get("inputs")
    if not isinstance(declared, list):
        raise InvalidArgument("must be a list of tensors", field="inputs")
    for index, item in enumerate(declared[: limits.max_tensors + 1]):
        if not isinstance(item, dict):
            raise InvalidArgument("must be an object", field=f"inputs[{index}]")
        for key, kind in (("name", str), ("datatype", str), ("shape", list)):
            if not isinstance(item.get(key), kind):
                wanted = {str: "a string", list: "a list of integers"}[kind]
                raise InvalidArgument(f"must be {wanted}", field=f"inputs[{index}].{key}")
    check_names([item["name"] for item in declared[: limits.max_tensors + 1]], limits)
    tensors = []
    position = 0
    for index, item in enumerate(declared):
        field = f"inputs[{index}] ({item['name']})"
        dtype = check_datatype(item["datatype"], field)
        shape = item["shape"]
        if any(not isinstance(d, int) or isinstance(d, bool) for d in shape):
            raise InvalidArgument("must be a list of integers", field=f"{field}.shape")
        count = check_shape(shape, field, limits)
        parameters = item.get("parameters") or {}
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is not None:
            if not isinstance(size, int) or size < 0 or position + size > len(binary):
                raise InvalidArgument(
                    f"must be a number of bytes within the {len(binary)} that follow the JSON",
                    field=f"{field}.parameters.binary_data_size",
                )
            data = decode_raw(binary[position : position + size], dtype, shape, count, f"{field} binary data")
            position += size
        elif "data" in item:
            data = _from_json(item["data"], item["datatype"], dtype, shape, count, f"{field}.data")
        else:
            raise InvalidArgument("must be there, or parameters.binary_data_size", field=f"{field}.data")
        tensors.append(Tensor(item["name"], data))
    if position != len(binary):
        raise InvalidArgument(f"{len(binary) - position} bytes belong to no tensor", field="body")
    return tensors


def _from_json(
    data: Any, datatype: str, dtype: np.dtype[Any], shape: list[int], count: int, field: str
) -> NDArray[Any]:
    read = data.read(dtype.kind) if isinstance(data, Numbers) else None
    if isinstance(data, Numbers) and read is None:
        data = data.as_list()  # to say what is wrong
    if read is None and not isinstance(data, list):
        raise InvalidArgument("must be a list, flat or nested", field=field)
    if dtype.kind == "O":
        flat = _flatten(data)
        if len(flat) != count:
            raise InvalidArgument(f"must hold {count} elements for the shape {shape}, got {len(flat)}", field=field)
        if not all(isinstance(item, str) for item in flat):
            raise InvalidArgument("BYTES must be strings", field=field)
        return bytes_array([item.encode() for item in flat], shape)
    array = _numbers(data, field) if read is None else read
    if array.size != count or (array.ndim > 1 and list(array.shape) != shape):
        raise InvalidArgument(f"must hold {count} elements in the shape {shape}, got {list(array.shape)}", field=field)
    if count == 0:
        return np.empty(shape, dtype)
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if array.dtype.kind not in allowed:
        raise InvalidArgument(f"must hold {datatype} values", field=field)
    cast = array.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise InvalidArgument(f"holds values beyond {datatype}", field=field)
    return cast.reshape(shape)


def _numbers(data: list[Any], field: str) -> NDArray[Any]:
    try:
        array = np.array(data)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument("must be a list of numbers, nested evenly", field=field) from error
    if array.dtype.kind == "O" or array.dtype.kind in "USV":
        raise InvalidArgument("must be a list of numbers, nested evenly", field=field)
    return array


def _flatten(data: list[Any]) -> list[Any]:
    """Flattens nested lists; the JSON parser has bounded their depth."""
    flat: list[Any] = []
    stack = [iter(data)]
    while stack:
        for item in stack[-1]:
            if isinstance(item, list):
                stack.append(iter(item))
                break
            flat.append(item)
        else:
            stack.pop()
    return flat


def wanted_outputs(body: dict[str, Any]) -> tuple[list[str], dict[str, bool], bool]:
    """Reads which outputs a v2 request asks for: names, which of them binary, and whether all are by default."""
    parameters = body.get("parameters")
    default = bool(parameters.get("binary_data_output")) if isinstance(parameters, dict) else False
    outputs = body.get("outputs") or []
    if not isinstance(outputs, list) or len(outputs) > MAX_OUTPUTS:
        raise InvalidArgument(f"must be a list of at most {MAX_OUTPUTS} outputs", field="outputs")
    names, binary = [], {}
    for index, item in enumerate(outputs):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise InvalidArgument("must be an object with a name", field=f"outputs[{index}]")
        own = item.get("parameters")
        names.append(item["name"])
        binary[item["name"]] = bool(own.get("binary_data", default)) if isinstance(own, dict) else default
    return names, binary, default


def encode_v2(
    head: dict[str, Any], outputs: Sequence[Tensor], binary: dict[str, bool], default: bool
) -> tuple[bytes, list[bytes | memoryview]]:
    """Gives the JSON part of a v2 answer, and the binary tensors that follow it."""
    described = []
    parts: list[bytes | memoryview] = []
    for output in outputs:
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.data.shape)}
        if binary.get(output.name, default):
            part = encode_raw(output)
            entry["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
        else:
            entry["data"] = to_list(output.data.ravel())
        described.append(entry)
    return orjson.dumps({**head, "outputs": described}), parts


def to_list(data: NDArray[Any]) -> list[Any]:
    """Gives an array as JSON can hold it: BYTES as text."""
    values: list[Any] = data.tolist()
    return _as_text(values) if data.dtype.kind == "O" else values


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def decode_v1(body: dict[str, Any], limits: Limits) -> Tensor:
    """Gives the tensor of a v1 request: `{"instances": [...]}`.

    Raises:
        InvalidArgument: There are no instances, or they are not one array.
    """
    instances = body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise InvalidArgument(
            "must be a list of instances, each a number, a string or a list of them", field="instances"
        )
    try:
        tensor = as_tensor("instances", np.array(instances))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidArgument("must all have one shape and one kind of value", field="instances") from error
    check_shape(list(tensor.data.shape), "instances", limits)
    return tensor


def encode_v1(outputs: Sequence[Tensor]) -> bytes:
    """Gives `{"predictions": [...]}`: the values of one output, or for several an object for each instance."""
    if len(outputs) == 1:
        return orjson.dumps({"predictions": to_list(outputs[0].data)})
    columns = {output.name: to_list(output.data) for output in outputs}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)]
    return orjson.dumps({"predictions": rows})
