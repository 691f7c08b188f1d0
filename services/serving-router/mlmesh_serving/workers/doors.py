"""From a request's bytes to tensors and back, by the door it came through."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mlmesh_kit.errors import InvalidArgument, Unimplemented

from mlmesh_serving.backend import Door
from mlmesh_serving.codecs import grpc as grpc_codec
from mlmesh_serving.codecs import json as json_codec
from mlmesh_serving.tensor import Limits, Tensor

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Encoded:
    """An answer.

    Attributes:
        parts: Its bytes, one after the other.
        json_length: Of an answer with binary tensors: bytes of its JSON part; None: it is all JSON, or not JSON.
    """

    parts: list[Buffer]
    json_length: int | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request.

    Attributes:
        tensors: Its inputs.
        encode: Makes the answer of the outputs.
        wanted: Names of the outputs to give; empty: all.
    """

    tensors: list[Tensor]
    encode: Callable[[list[Tensor]], Encoded]
    wanted: list[str] = field(default_factory=list)


def decode(door: Door, model: str, version: str, body: Buffer, json_length: int | None, limits: Limits) -> Decoded:
    """Reads a request.

    Args:
        door: How it came.
        model: Name, as the client wrote it.
        version: Of the model, for the answer.
        body: Its bytes.
        json_length: See `WireRequest`.
        limits: How large it may be.

    Raises:
        InvalidArgument: It contradicts itself or the protocol; the message names where.
        Unimplemented: Nothing here answers what comes by this door.
    """
    if door is Door.GRPC:
        return _grpc(version, body, limits)
    if door is Door.REST_V2:
        return _v2(model, version, body, json_length, limits)
    if door is Door.REST_V1:
        tensor = json_codec.decode_v1(json_codec.parse(body), limits)
        return Decoded([tensor], lambda outputs: Encoded([json_codec.encode_v1(outputs)]))
    raise Unimplemented("this model explains nothing")


def _grpc(version: str, body: Buffer, limits: Limits) -> Decoded:
    request, raw = grpc_codec.read_request(body)
    tensors = grpc_codec.decode_request(request, raw, limits)
    wanted = grpc_codec.wanted_outputs(request)
    as_raw = bool(raw)
    return Decoded(
        tensors, lambda outputs: Encoded(grpc_codec.encode_response(request, version, outputs, raw=as_raw)), wanted
    )


def _v2(model: str, version: str, body: Buffer, json_length: int | None, limits: Limits) -> Decoded:
    view = memoryview(body)
    length = len(view) if json_length is None else json_length
    content = json_codec.parse_v2(view[:length])
    identifier = content.get("id", "")
    if not isinstance(identifier, str):
        raise InvalidArgument("must be a string", field="id")
    tensors = json_codec.decode_v2(content, view[length:], limits)
    names, as_binary, default = json_codec.wanted_outputs(content)
    described = {"model_name": model, "model_version": version}
    if identifier:
        described["id"] = identifier

    def encode(outputs: list[Tensor]) -> Encoded:
        head, binary = json_codec.encode_v2(described, outputs, as_binary, default)
        return Encoded([head, *binary], len(head) if binary else None)

    return Decoded(tensors, encode, names)
