"""Between the encodings of two doors, for a client and a server that speak different ones.

The only part of a remote backend that reads tensors; where both speak the same, it has no part in it.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from mlmesh_kit.errors import Internal, InvalidArgument
from mlmesh_protos.inference import grpc_service_pb2 as oip

from mlmesh_serving.codecs import grpc as grpc_codec
from mlmesh_serving.codecs import json as json_codec
from mlmesh_serving.codecs.raw import encode_raw
from mlmesh_serving.remote.message import next_request
from mlmesh_serving.tensor import Limits, Tensor


def grpc_request(tensors: Sequence[Tensor], wanted: Sequence[str], model: str, version: str) -> bytes:
    """Encodes a request as a serialized ModelInferRequest.

    Args:
        tensors: The inputs.
        wanted: Names of the outputs; empty: all.
        model: Its name there.
        version: Its version there; empty: any.
    """
    message = oip.ModelInferRequest(model_name=model, model_version=version)
    for tensor in tensors:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.data.shape)
        message.raw_input_contents.append(bytes(encode_raw(tensor)))
    for name in wanted:
        message.outputs.add(name=name)
    return message.SerializeToString()


def v2_request(tensors: Sequence[Tensor], wanted: Sequence[str]) -> bytes:
    """Encodes a request as JSON of REST v2, without binary data, which not every server reads.

    Raises:
        InvalidArgument: A tensor of BYTES is no text, which JSON has alone.
    """
    inputs = []
    for tensor in tensors:
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
    if wanted:
        body["outputs"] = [{"name": name} for name in wanted]
    return orjson.dumps(body)


def _check_text(tensor: Tensor) -> None:
    for item in tensor.data.ravel():
        try:
            item.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                "must be UTF-8: the model's server is asked in JSON", field=f"inputs ({tensor.name})"
            ) from error


def grpc_answer(answer: bytes, limits: Limits, stage: str) -> list[Tensor]:
    """Decodes a serialized ModelInferResponse.

    Raises:
        Internal: It is none, or its tensors contradict themselves.
    """
    try:
        # The outputs of an answer are written as the inputs of a request are, and so read by the same decoder.
        request, raw = grpc_codec.read_request(next_request(answer, b"", last=True))
        return grpc_codec.decode_request(request, raw, limits)
    except InvalidArgument as error:
        raise Internal(f"{stage} gave no valid answer") from error


def v2_answer(body: bytes, json_length: int | None, limits: Limits, stage: str) -> list[Tensor]:
    """Decodes an answer of REST v2.

    Raises:
        Internal: It is none, or its tensors contradict themselves.
    """
    view = memoryview(body)
    length = len(view) if json_length is None else json_length
    try:
        found = json_codec.parse(view[:length])
        return json_codec.decode_v2({"inputs": found.get("outputs")}, view[length:], limits)
    except InvalidArgument as error:
        raise Internal(f"{stage} gave no valid answer") from error
