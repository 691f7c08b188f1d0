"""A model on a server elsewhere, as a Backend: bytes come and go on, and nobody reads the tensors."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar
from urllib.parse import quote

from mlmesh_kit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Unimplemented,
)
from mlmesh_protos.inference import grpc_service_pb2 as oip

from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.datatypes import Limits
from mlmesh_serving.manifest.spec import Protocol
from mlmesh_serving.remote.connections import Connections
from mlmesh_serving.remote.errors import of_response
from mlmesh_serving.remote.grpc_client import said_by
from mlmesh_serving.remote.http_client import HttpAnswer
from mlmesh_serving.remote.message import renamed
from mlmesh_serving.remote.model import RemoteModel

logger = logging.getLogger(__name__)

T = TypeVar("T")

SERVICE = "/inference.GRPCInferenceService"
DEFAULT_MAX_IN_FLIGHT = 1024
_JSON = "application/json"
_BINARY = "application/octet-stream"
_HEAD_LENGTH = "inference-header-content-length"
_PROBE_SECONDS = 5.0
_PROBE_SECONDS_WHILE_DOWN = 1.0
_LARGE = 64 << 10  # bytes beyond which a conversion is not made on the event loop


class RemoteBackend:
    """One model on a server elsewhere.

    Args:
        model: Where it is.
        stage: What it is to our clients: predictor, preprocessor, ...; for messages.
        connections: To servers elsewhere.
        limits: Of tensors, where a request must be written in another encoding.
        version: Of the model in answers; empty: the one that the server gave.
        max_in_flight: Requests beyond which one more is refused.
    """

    def __init__(
        self,
        model: RemoteModel,
        stage: str,
        connections: Connections,
        limits: Limits,
        *,
        version: str = "",
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
    ) -> None:
        self.model = model
        self.problem = "it was not asked yet"
        """Why it is not ready; empty when it is."""
        self._stage = f"the {stage}"
        self._connections = connections
        self._limits = limits
        self._version = version or None
        self._max_in_flight = max_in_flight
        self._grpc = connections.grpc(model.address) if model.address.is_grpc else None
        self._running: set[asyncio.Task[WireAnswer]] = set()
        self._probing: asyncio.Task[None] | None = None
        self._streams = 0
        self._closed = False

    @property
    def in_flight(self) -> int:
        """See Backend."""
        return len(self._running) + self._streams

    @property
    def ready(self) -> int:
        """See Backend: 1 while the server says that the model is ready."""
        return 0 if self.problem or self._closed else 1

    async def start(self, model: str) -> None:
        """Asks whether the server is ready, and again every few seconds from then on.

        Args:
            model: As our clients call it; the server is asked for it where it has no other name there.
        """
        name = self.model.name or model
        await self._probe(name)
        self._probing = asyncio.create_task(self._probe_for_ever(name), name=f"probe {self.model.address}")

    def submit(self, request: WireRequest) -> "asyncio.Future[WireAnswer]":
        """See Backend. It is sent even if the last probe failed: the server may be back."""
        self._check_room()
        task = asyncio.get_running_loop().create_task(self._answer(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    @contextlib.asynccontextmanager
    async def openai(
        self, route: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[int, Mapping[str, str], AsyncIterator[bytes]]]:
        """Asks one of the server's OpenAI routes; gives status, headers and the body as it comes.

        Args:
            route: Below the model's `openai_path`: `chat/completions`, ...
            body: JSON, with the model's name as the server knows it.
            headers: The client's; names in lower case.

        Raises:
            FailedPrecondition: The server has no such routes.
            ResourceExhausted, Unavailable: See `submit`.
        """
        there = self.model
        if not there.openai_path:
            raise FailedPrecondition(f"{self._stage} has no OpenAI routes (remote.openai)")
        self._check_room()
        sent = {**self._connections.headers(there.address, headers), "content-type": _JSON}
        self._streams += 1
        try:
            async with self._connections.http.stream(
                "POST",
                there.address,
                f"{there.openai_path}/{route}",
                body,
                sent,
                there.timeout_seconds,
                self._stage,
            ) as answer:
                yield answer
        finally:
            self._streams -= 1

    async def scale(self, replicas: int) -> None:
        """See Backend: how many there are is not ours to say."""

    async def close(self, grace_seconds: float) -> None:
        """See Backend."""
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
            for task in list(self._running):
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)
        if self._grpc is not None:
            await self._grpc.close()

    def _check_room(self) -> None:
        if self._closed:
            raise Unavailable(f"{self._stage} takes no more requests", retry_after_seconds=1)
        if self.in_flight >= self._max_in_flight:
            raise ResourceExhausted(
                f"{self._max_in_flight} requests to {self._stage} are in flight, which is the most allowed",
                retry_after_seconds=1,
            )

    async def _answer(self, request: WireRequest) -> WireAnswer:
        door, protocol = request.door, self.model.protocol
        if protocol is Protocol.GRPC_V2:
            if door is Door.GRPC:
                return WireAnswer(await self._infer_grpc(request, self._renamed(request)))
            if door is not Door.EXPLAIN:
                return await self._converted(request)
        elif protocol is Protocol.V2:
            if door is Door.REST_V2:
                return await self._infer_v2(request, request.body, request.json_length)
            if door is not Door.EXPLAIN:
                return await self._converted(request)
        elif door in (Door.REST_V1, Door.EXPLAIN):
            return await self._infer_v1(request)
        raise Unimplemented(f"{self._stage} speaks {protocol.value}, which has no {door.value}")

    def _renamed(self, request: WireRequest) -> bytes:
        return renamed(request.body, self.model.name or _plain(request.model), self.model.version)

    async def _infer_grpc(self, request: WireRequest, message: bytes) -> bytes:
        answer = await self._call("ModelInfer", message, request)
        try:
            return renamed(answer, request.model, self._version)
        except InvalidArgument as error:
            raise Internal(f"{self._stage} gave no valid answer") from error

    async def _call(self, method: str, message: bytes, request: WireRequest) -> bytes:
        assert self._grpc is not None
        metadata = self._connections.headers(self.model.address, request.headers)
        seconds = self._seconds_left(request)
        try:
            return await self._grpc.call(f"{SERVICE}/{method}", message, tuple(metadata.items()), seconds)
        except ServiceError as error:
            raise said_by(error, self._stage) from None

    async def _infer_v2(self, request: WireRequest, body: bytes, json_length: int | None) -> WireAnswer:
        answer = await self._post(request, f"{self._v2_path(request.model)}/infer", body, json_length)
        given = answer.headers.get(_HEAD_LENGTH)
        if given is None:
            self._check_json(answer, len(answer.body))
            return WireAnswer(answer.body)
        if not given.isdigit() or int(given) > len(answer.body):
            raise Internal(f"{self._stage} gave no valid answer: {_HEAD_LENGTH} is beyond the body")
        self._check_json(answer, int(given))
        return WireAnswer(answer.body, int(given))

    async def _infer_v1(self, request: WireRequest) -> WireAnswer:
        verb = "explain" if request.door is Door.EXPLAIN else "predict"
        name = quote(self.model.name or _plain(request.model), safe="")
        answer = await self._post(request, f"/v1/models/{name}:{verb}", request.body, None)
        self._check_json(answer, len(answer.body))
        return WireAnswer(answer.body)

    async def _post(self, request: WireRequest, path: str, body: bytes, json_length: int | None) -> HttpAnswer:
        headers = self._connections.headers(self.model.address, request.headers)
        headers["content-type"] = _JSON if json_length is None else _BINARY
        if json_length is not None:
            headers[_HEAD_LENGTH] = str(json_length)
        answer = await self._connections.http.post(
            self.model.address, path, body, headers, self._seconds_left(request), self._stage
        )
        if answer.status != 200:
            raise of_response(answer.status, answer.headers, answer.body, self._stage)
        return answer

    def _check_json(self, answer: HttpAnswer, length: int) -> None:
        """An error page of something in between must not pass for an answer; the rest is the client's to read."""
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise Internal(f"{self._stage} compressed its answer, which nobody asked for")
        if not answer.body[:length].lstrip(b" \t\r\n").startswith(b"{"):
            raise Internal(f"{self._stage} gave no valid answer: it is no JSON object")

    async def _converted(self, request: WireRequest) -> WireAnswer:
        """Asks in another encoding than the client's, which is the one case where the tensors are read."""
        # numpy, which the router has otherwise no need of
        from mlmesh_serving.remote import conversion
        from mlmesh_serving.workers.doors import decode

        model, limits, stage = self.model.name or _plain(request.model), self._limits, self._stage
        size = len(request.body)
        version = self._version or self.model.version
        asked = await _off_loop(
            size, lambda: decode(request.door, request.model, version, request.body, request.json_length, limits)
        )
        if self.model.protocol is Protocol.GRPC_V2:
            message = await _off_loop(
                size, lambda: conversion.grpc_request(asked.tensors, asked.wanted, model, self.model.version)
            )
            answer = await self._call("ModelInfer", message, request)
            size = len(answer)
            tensors = await _off_loop(size, lambda: conversion.grpc_answer(answer, limits, stage))
        else:
            body = await _off_loop(size, lambda: conversion.v2_request(asked.tensors, asked.wanted))
            found = await self._infer_v2(request, body, None)
            size = len(found.body)
            tensors = await _off_loop(size, lambda: conversion.v2_answer(found.body, found.json_length, limits, stage))
        encoded = await _off_loop(size, lambda: asked.encode(tensors))
        return WireAnswer(b"".join(encoded.parts), encoded.json_length)

    def _v2_path(self, model: str) -> str:
        path = f"/v2/models/{quote(self.model.name or _plain(model), safe='')}"
        return f"{path}/versions/{quote(self.model.version, safe='')}" if self.model.version else path

    def _seconds_left(self, request: WireRequest) -> float:
        timeout = self.model.timeout_seconds
        if request.deadline is not None:
            timeout = min(timeout, request.deadline - asyncio.get_running_loop().time())
        if timeout <= 0:
            raise DeadlineExceeded("the deadline has passed")
        return timeout

    async def _probe_for_ever(self, model: str) -> None:
        while True:
            await asyncio.sleep(_PROBE_SECONDS if self.ready else _PROBE_SECONDS_WHILE_DOWN)
            await self._probe(model)

    async def _probe(self, model: str) -> None:
        before = self.problem
        try:
            is_ready = await (self._is_ready_grpc(model) if self._grpc is not None else self._is_ready_http(model))
            self.problem = "" if is_ready else f"{self._stage} at {self.model.address.authority} is not ready"
        except ServiceError as error:
            self.problem = error.message
        except Exception:
            logger.exception("the probe of %s failed", self.model.address)
            self.problem = f"{self._stage} could not be asked; the service's log has the reason"
        if self.problem != before:
            logger.info("remote %s", self.problem or "ready", extra={"address": str(self.model.address)})

    async def _is_ready_grpc(self, model: str) -> bool:
        request = WireRequest(Door.GRPC, model, b"", deadline=asyncio.get_running_loop().time() + _PROBE_SECONDS)
        if not oip.ServerReadyResponse.FromString(await self._call("ServerReady", b"", request)).ready:
            return False
        question = oip.ModelReadyRequest(name=model, version=self.model.version).SerializeToString()
        return oip.ModelReadyResponse.FromString(await self._call("ModelReady", question, request)).ready

    async def _is_ready_http(self, model: str) -> bool:
        address, http = self.model.address, self._connections.http
        if self.model.openai_path:
            path = f"{self.model.openai_path}/models"
        elif self.model.protocol is Protocol.V1:
            path = f"/v1/models/{quote(model, safe='')}"
        else:
            path = f"{self._v2_path(model)}/ready"
        answer = await http.get(address, path, self._connections.headers(address, {}), _PROBE_SECONDS, self._stage)
        if answer.status in (404, 401, 403) or answer.status >= 500:
            raise of_response(answer.status, answer.headers, answer.body, self._stage)
        return answer.status == 200


def _plain(model: str) -> str:
    """Takes the namespace off a name; servers elsewhere know nothing of ours."""
    return model.partition(".")[2] or model


async def _off_loop(size: int, function: Callable[[], T]) -> T:
    return function() if size < _LARGE else await asyncio.to_thread(function)
