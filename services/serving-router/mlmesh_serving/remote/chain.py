"""Preprocessor → predictor → postprocessor where one of them is elsewhere: a Backend made of Backends.

The outputs of a stage are the inputs of the next. By gRPC they are handed on as bytes, unread. Stages that all run here
are one Backend of their own, and need none of this.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from mlmesh_kit.errors import Internal, InvalidArgument, Unavailable, Unimplemented

from mlmesh_serving.backend import Backend, Door, WireAnswer, WireRequest
from mlmesh_serving.remote.message import next_request, without_wanted_outputs


class ChainBackend:
    """One revision of a model whose stages are several backends.

    Args:
        stages: In their order, one or more; each takes what the one before it gave.
    """

    def __init__(self, stages: Sequence[Backend]) -> None:
        assert stages, "a chain has a stage"
        self._stages = list(stages)
        self._running: set[asyncio.Task[WireAnswer]] = set()
        self._closed = False

    @property
    def in_flight(self) -> int:
        """See Backend."""
        return len(self._running)

    @property
    def ready(self) -> int:
        """See Backend: as many as the stage with the fewest."""
        return min(stage.ready for stage in self._stages)

    def submit(self, request: WireRequest) -> "asyncio.Future[WireAnswer]":
        """See Backend."""
        if self._closed:
            raise Unavailable(f"model {request.model!r} takes no more requests", retry_after_seconds=1)
        task = asyncio.get_running_loop().create_task(self._answer(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def scale(self, replicas: int) -> None:
        """See Backend."""
        await asyncio.gather(*(stage.scale(replicas) for stage in self._stages))

    async def close(self, grace_seconds: float) -> None:
        """See Backend."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        await asyncio.gather(*(stage.close(0) for stage in self._stages))

    async def _answer(self, request: WireRequest) -> WireAnswer:
        if len(self._stages) == 1:
            return await self._stages[0].submit(request)
        if request.door is Door.EXPLAIN:
            raise Unimplemented("a model with stages elsewhere is not explained")
        body, length = _first(request)
        for number, stage in enumerate(self._stages[:-1], 2):
            answer = await stage.submit(_with(request, body, length))
            try:
                body, length = _next(request, answer, last=number == len(self._stages))
            except InvalidArgument as error:
                raise Internal("a stage gave no valid answer") from error
        return await self._stages[-1].submit(_with(request, body, length))


def _with(request: WireRequest, body: bytes, json_length: int | None) -> WireRequest:
    return WireRequest(request.door, request.model, body, json_length, request.headers, request.deadline)


def _first(request: WireRequest) -> tuple[bytes, int | None]:
    """Gives what the first stage is asked: all of its outputs, for those that the client wants are the last one's."""
    if request.door is Door.GRPC:
        return without_wanted_outputs(request.body), None
    if request.door is Door.REST_V1:
        return request.body, None
    head, binary = _split(request.body, request.json_length)
    document = _parsed(head)
    if "outputs" not in document:
        return request.body, request.json_length
    del document["outputs"]
    return _joined(document, binary)


def _next(request: WireRequest, answer: WireAnswer, *, last: bool) -> tuple[bytes, int | None]:
    """Makes the body for the next stage of the answer of the one before.

    Raises:
        InvalidArgument: The answer is not of its door's form.
    """
    if request.door is Door.GRPC:
        return next_request(answer.body, request.body, last=last), None
    head, binary = _split(answer.body, answer.json_length)
    document = _parsed(head)
    asked = _parsed(_split(request.body, request.json_length)[0])
    if request.door is Door.REST_V1:
        if "predictions" not in document:
            raise InvalidArgument("must be there", field="predictions")
        return orjson.dumps({**asked, "instances": document["predictions"]}), None
    if not isinstance(document.get("outputs"), list):
        raise InvalidArgument("must be a list of tensors", field="outputs")
    kept = {key: value for key, value in asked.items() if key not in ("inputs", "outputs")}
    if last and "outputs" in asked:
        kept["outputs"] = asked["outputs"]
    return _joined({**kept, "inputs": document["outputs"]}, binary)


def _parsed(head: memoryview) -> dict[str, Any]:
    try:
        found = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"must be JSON: {error}", field="body") from error
    if not isinstance(found, dict):
        raise InvalidArgument("must be a JSON object", field="body")
    return found


def _split(body: bytes, json_length: int | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    length = len(view) if json_length is None else json_length
    return view[:length], view[length:]


def _joined(document: dict[str, Any], binary: memoryview) -> tuple[bytes, int | None]:
    head = orjson.dumps(document)
    return (b"".join((head, binary)), len(head)) if binary else (head, None)
