"""Between the encodings of two doors, for a client and a server that speak different ones.

The only part of a remote backend that reads tensors; where both speak the same, it has no part in it.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from mlmesh_kit.errors import Internal, InvalidArgument
from mlmesh_protos.inference import grpc_service_pb2 as oip

from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.codecs import grpc as grpc_codec
from mlmesh_serving.codecs import json as json_codec
from mlmesh_serving.codecs.raw import encode_raw
from mlmesh_serving.remote.message import next_request
from mlmesh_serving.tensor import Limits, Tensor


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked, decoded.

    Attributes:
        tensors: The inputs.
        identifier: Of the request; empty: none.
        wanted: Names of the outputs; empty: all.
        binary: By REST v2: which outputs are wanted as binary data.
        binary_default: And whether the others are.
        message: By gRPC: the request, for the form of the answer.
    """

    tensors: list[Tensor]
    identifier: str = ""
    wanted: list[str] = field(default_factory=list)
    binary: dict[str, bool] = field(default_factory=dict)
    binary_default: bool = False
    message: Any = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What a server answered, decoded."""

    tensors: list[Tensor]
    version: str = ""


def read_request(request: WireRequest, limits: Limits) -> Asked:
    """Decodes what a client sent.

    Raises:
        InvalidArgument: It is not of its door's form.
    """
    if request.door is Door.GRPC:
        message = _parsed(oip.ModelInferRequest, request.body)
        wanted = grpc_codec.wanted_outputs(message)
        return Asked(grpc_codec.decode_request(message, limits), message.id, wanted, message=message)
    if request.door is Door.REST_V1:
        return Asked([json_codec.decode_v1(json_codec.parse(request.body), limits)])
    head, binary = _split(request.body, request.json_length)
    body = json_codec.parse(head)
    identifier = body.get("id", "")
    if not isinstance(identifier, str):
        raise InvalidArgument("must be a string", field="id")
    names, as_binary, default = json_codec.wanted_outputs(body)
    return Asked(json_codec.decode_v2(body, binary, limits), identifier, names, as_binary, default)


def grpc_request(asked: Asked, model: str, version: str) -> bytes:
    """Encodes a request as a serialized ModelInferRequest."""
    message = oip.ModelInferRequest(model_name=model, model_version=version, id=asked.identifier)
    for tensor in asked.tensors:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.data.shape)
        message.raw_input_contents.append(encode_raw(tensor))
    for name in asked.wanted:
        message.outputs.add(name=name)
    return message.SerializeToString()


def v2_request(asked: Asked) -> bytes:
    """Encodes a request as JSON of REST v2, without binary data, which not every server reads.

    Raises:
        InvalidArgument: A tensor of BYTES is no text, which JSON has alone.
    """
    inputs = []
    for tensor in asked.tensors:
        if tensor.data.dtype.kind == "O":
            _check_text(tensor)
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.data.shape),
                "data": json_codec.to_list(tensor.data.ravel()),
            }
        )
    body: dict[str, Any] = {"inputs": inputs}
    if asked.identifier:
        body["id"] = asked.identifier
    if asked.wanted:
        body["outputs"] = [{"name": name} for name in asked.wanted]
    return orjson.dumps(body)


def _check_text(tensor: Tensor) -> None:
    for item in tensor.data.ravel():
        try:
            item.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                "must be UTF-8: the model's server is asked in JSON", field=f"inputs ({tensor.name})"
            ) from error


def grpc_answer(answer: bytes, limits: Limits, stage: str) -> Answered:
    """Decodes a serialized ModelInferResponse.

    Raises:
        Internal: It is none, or its tensors contradict themselves.
    """
    try:
        response = _parsed(oip.ModelInferResponse, answer)
        # The outputs of an answer are written as the inputs of a request are, and so read by the same decoder.
        request = _parsed(oip.ModelInferRequest, next_request(answer, b"", last=True))
        return Answered(grpc_codec.decode_request(request, limits), response.model_version)
    except InvalidArgument as error:
        raise Internal(f"{stage} gave no valid answer") from error


def v2_answer(body: bytes, json_length: int | None, limits: Limits, stage: str) -> Answered:
    """Decodes an answer of REST v2.

    Raises:
        Internal: It is none, or its tensors contradict themselves.
    """
    try:
        head, binary = _split(body, json_length)
        found = json_codec.parse(head)
        tensors = json_codec.decode_v2({"inputs": found.get("outputs")}, binary, limits)
    except InvalidArgument as error:
        raise Internal(f"{stage} gave no valid answer") from error
    version = found.get("model_version")
    return Answered(tensors, version if isinstance(version, str) else "")


def write_answer(request: WireRequest, asked: Asked, answered: Answered) -> WireAnswer:
    """Encodes an answer as the client's door has it."""
    if request.door is Door.GRPC:
        response = grpc_codec.encode_response(asked.message, answered.version, answered.tensors)
        response.model_name = request.model
        return WireAnswer(response.SerializeToString())
    if request.door is Door.REST_V1:
        return WireAnswer(json_codec.encode_v1(answered.tensors))
    described = {"model_name": request.model, "model_version": answered.version}
    if asked.identifier:
        described["id"] = asked.identifier
    head, binary = json_codec.encode_v2(described, answered.tensors, asked.binary, asked.binary_default)
    return WireAnswer(head + binary, len(head)) if binary else WireAnswer(head)


def _parsed(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidArgument("the request is not a valid message of its type") from error


def _split(body: bytes, json_length: int | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if json_length is None:
        return view, view[len(view) :]
    if not 0 <= json_length <= len(view):
        raise InvalidArgument(
            f"must be the length of the JSON part, at most the body's {len(view)}",
            field="Inference-Header-Content-Length",
        )
    return view[:json_length], view[json_length:]
