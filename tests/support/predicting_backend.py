"""A backend that predicts with a function, for what asks a model by the binary form of REST v2."""

import asyncio

import numpy as np
import orjson
from mlmesh_kit.errors import ServiceError
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.codecs import json as codec
from mlmesh_serving.codecs.raw import encode_raw
from mlmesh_serving.tensor import Limits, as_tensor

LIMITS = Limits(max_elements=10_000_000, max_tensors=8)


class PredictingBackend:
    """Answers at once, or when a test says so."""

    def __init__(self, function, *, holds: bool = False) -> None:
        self.function = function
        self.holds = holds
        self.held: list[asyncio.Future[WireAnswer]] = []
        self.requests: list[WireRequest] = []
        self.rows: list[int] = []
        self.names: set[tuple[str, str]] = set()
        self.in_flight = 0
        self.ready = 1

    def submit(self, request: WireRequest) -> "asyncio.Future[WireAnswer]":
        future: asyncio.Future[WireAnswer] = asyncio.get_running_loop().create_future()
        self.requests.append(request)
        if self.holds:
            self.held.append(future)
            return future
        try:
            future.set_result(self._answer(request))
        except ServiceError as error:
            future.set_exception(error)
        return future

    def _answer(self, request: WireRequest) -> WireAnswer:
        assert request.door is Door.REST_V2 and request.json_length is not None
        head = codec.parse(request.body[: request.json_length])
        (tensor,) = codec.decode_v2(head, memoryview(request.body)[request.json_length :], LIMITS)
        self.rows.append(len(tensor.data))
        self.names.add((tensor.name, tensor.datatype))
        output = as_tensor("predict", self.function(tensor.data))
        raw = bytes(encode_raw(output)) if output.datatype != "BYTES" else b""
        entry = {"name": "predict", "datatype": output.datatype, "shape": output.data.shape}
        if output.datatype == "BYTES":
            entry["data"] = [item.decode() for item in output.data.ravel()]
            return WireAnswer(orjson.dumps({"outputs": [entry]}))
        entry["parameters"] = {"binary_data_size": len(raw)}
        answer = orjson.dumps({"model_name": request.model, "outputs": [entry]})
        return WireAnswer(answer + raw, len(answer))

    async def scale(self, replicas: int) -> None:
        pass

    async def close(self, grace_seconds: float) -> None:
        pass


def by_columns(function):
    """Makes a function of rows of one that gives a value a row."""
    return lambda rows: np.asarray(function(rows), dtype=float).reshape(len(rows), -1)
