"""What can be read from the bytes of a prediction: tensors, and a payload for a log."""

from typing import Any

import orjson
from mlmesh_kit.errors import InvalidArgument, ServiceError

from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.codecs import json as codec
from mlmesh_serving.codecs.grpc import decode_request
from mlmesh_serving.tensor import Limits, Tensor

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
BINARY = "application/octet-stream"


def request_tensors(request: WireRequest, limits: Limits) -> list[Tensor]:
    """Gives the inputs of a request.

    Raises:
        ServiceError: They cannot be read.
    """
    if request.door is Door.GRPC:
        message = _parse_request(request.body)
        return decode_request(message, message.raw_input_contents, limits)
    body, binary = _split(request.body, request.json_length)
    if request.door is Door.REST_V2 or "inputs" in body:
        return codec.decode_v2(body, binary, limits)
    return [codec.decode_v1(body, limits)]


def answer_tensors(door: Door, answer: WireAnswer, limits: Limits) -> list[Tensor]:
    """Gives the outputs of an answer.

    Raises:
        ServiceError: They cannot be read.
    """
    if door is Door.GRPC:
        return _outputs(_parse_response(answer.body), limits)
    body, binary = _split(answer.body, answer.json_length)
    if door is Door.REST_V2:
        return codec.decode_v2({"inputs": body.get("outputs")}, binary, limits)
    return [codec.decode_v1({"instances": body.get("predictions")}, limits)]


def request_content(request: WireRequest, limits: Limits) -> tuple[str, bytes]:
    """Gives a request's content type and payload for a log: JSON, but for what JSON cannot hold."""
    if request.door is Door.GRPC:
        return _logged(request.body, PROTOBUF, lambda: _grpc_request_json(request, limits))
    if request.json_length is None:
        return JSON, request.body
    return _logged(request.body, BINARY, lambda: _binary_json(request.body, request.json_length, "inputs", limits))


def answer_content(door: Door, answer: WireAnswer, limits: Limits) -> tuple[str, bytes]:
    """Gives an answer's content type and payload for a log; see `request_content`."""
    if door is Door.GRPC:
        return _logged(answer.body, PROTOBUF, lambda: _grpc_answer_json(answer, limits))
    if answer.json_length is None:
        return JSON, answer.body
    return _logged(answer.body, BINARY, lambda: _binary_json(answer.body, answer.json_length, "outputs", limits))


def _logged(raw: bytes, raw_type: str, convert: Any) -> tuple[str, bytes]:
    try:
        return JSON, orjson.dumps(convert())
    except (ServiceError, UnicodeDecodeError, TypeError):  # e.g. BYTES that are no text
        return raw_type, raw


def _grpc_request_json(request: WireRequest, limits: Limits) -> dict[str, Any]:
    message = _parse_request(request.body)
    head = _head(message)
    if message.outputs:
        head["outputs"] = [{"name": output.name} for output in message.outputs]
    return {**head, "inputs": _described(decode_request(message, message.raw_input_contents, limits))}


def _grpc_answer_json(answer: WireAnswer, limits: Limits) -> dict[str, Any]:
    message = _parse_response(answer.body)
    return {**_head(message), "outputs": _described(_outputs(message, limits))}


def _head(message: Any) -> dict[str, Any]:
    head: dict[str, Any] = {"model_name": message.model_name, "model_version": message.model_version, "id": message.id}
    found = {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in message.parameters.items()
        if value.WhichOneof("parameter_choice")
    }
    return {key: value for key, value in {**head, "parameters": found}.items() if value}


def _binary_json(body: bytes, json_length: int | None, key: str, limits: Limits) -> dict[str, Any]:
    head, binary = _split(body, json_length)
    tensors = codec.decode_v2({"inputs": head.get(key)}, binary, limits)
    return {**head, key: _described(tensors)}


def _described(tensors: list[Tensor]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.data.shape),
            "data": _values(tensor),
        }
        for tensor in tensors
    ]


def _values(tensor: Tensor) -> list[Any]:
    """Gives a tensor's elements; raises UnicodeDecodeError where BYTES are no text, rather than to replace them."""
    flat = tensor.data.ravel()
    return [item.decode() for item in flat] if tensor.datatype == "BYTES" else flat.tolist()


def _split(body: bytes, json_length: int | None) -> tuple[dict[str, Any], memoryview]:
    view = memoryview(body)
    length = len(view) if json_length is None else json_length
    return codec.parse(view[:length]), view[length:]


def _parse_request(body: bytes) -> Any:
    from mlmesh_protos.inference import grpc_service_pb2 as oip

    return _parse(oip.ModelInferRequest, body)


def _parse_response(body: bytes) -> Any:
    from mlmesh_protos.inference import grpc_service_pb2 as oip

    return _parse(oip.ModelInferResponse, body)


def _parse(message_type: Any, body: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message_type.FromString(body)
    except DecodeError as error:
        raise InvalidArgument(f"is no {message_type.DESCRIPTOR.name}", field="body") from error


def _outputs(response: Any, limits: Limits) -> list[Tensor]:
    """Decodes a response's outputs as the inputs of a request: the two kinds of tensors have the same fields."""
    from mlmesh_protos.inference import grpc_service_pb2 as oip

    request = oip.ModelInferRequest()
    for output in response.outputs:
        request.inputs.add().ParseFromString(output.SerializeToString())
    return decode_request(request, response.raw_output_contents, limits)
