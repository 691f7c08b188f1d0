"""Runs a graph for a request: what KServe's graph router does, in this process.

Steps that name an InferenceService are handed to it without HTTP. A step that fails has a status and a body as an HTTP
answer has; as in KServe a Soft one goes on with that body, and a Hard one ends its node with that status.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from mlmesh_kit.errors import (
    HTTP_STATUS,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
)
from mlmesh_kit.http_errors import error_body

from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.graph.graph import ROOT, Data, Dependency, InferenceGraph, Node, RouterType, ServiceUrl, Step
from mlmesh_serving.graph.payload import Payload, off_loop
from mlmesh_serving.remote.connections import Connections

HOPS_HEADER = "mlmesh-graph-hops"
"""How many graphs a request has come through; a graph may call itself through a `serviceUrl`."""
MAX_HOPS = 8
_HEAD_LENGTH = "inference-header-content-length"

Ask = Callable[[str, str, WireRequest], Awaitable[WireAnswer]]
"""Asks an InferenceService: namespace, name, request. Raises a ServiceError where it fails."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step, a node or a graph ended with.

    Attributes:
        status: Of HTTP.
        payload: The body.
    """

    status: int
    payload: Payload

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status <= 299


@dataclass(frozen=True, slots=True)
class _Run:
    """What all steps of a request have in common."""

    graph: InferenceGraph
    namespace: str
    headers: Mapping[str, str]
    deadline: float
    hops: int


class GraphRouter:
    """Runs graphs.

    Args:
        ask: Asks an InferenceService.
        connections: To services elsewhere.
        draw: Draws a number from [0, 1), for Splitters.
    """

    def __init__(self, ask: Ask, connections: Connections, draw: Callable[[], float] = random.random) -> None:
        self._ask = ask
        self._connections = connections
        self._draw = draw

    async def infer(
        self,
        graph: InferenceGraph,
        namespace: str,
        request: Payload,
        headers: Mapping[str, str],
        deadline: float | None = None,
    ) -> Outcome:
        """Answers a request.

        Args:
            graph: That is asked.
            namespace: Of the graph, and so of the services that it names.
            request: Of REST v2 or v1.
            headers: The client's, names in lower case; those that go on are chosen here.
            deadline: Loop's time by which the client wants the answer; None: any.

        Raises:
            NotFound: No condition of a Switch holds.
            InvalidArgument: The request is no JSON where a condition has to be looked at.
            DeadlineExceeded: It took too long.
            Internal: An answer in an Ensemble is no JSON.
            FailedPrecondition: The request has come through too many graphs.
        """
        loop = asyncio.get_running_loop()
        latest = loop.time() + graph.timeout_seconds
        hops = _hops(headers)
        until = latest if deadline is None else min(latest, deadline)
        run = _Run(graph, namespace, self._connections.selected(headers), until, hops)
        try:
            async with asyncio.timeout_at(run.deadline):
                return await self._node(graph.nodes[ROOT], run, request)
        except TimeoutError as error:
            raise DeadlineExceeded(f"graph {graph.name!r} did not answer in time") from error

    async def _node(self, node: Node, run: _Run, request: Payload) -> Outcome:
        if node.router_type is RouterType.SEQUENCE:
            return await self._sequence(node, run, request)
        if node.router_type is RouterType.ENSEMBLE:
            return await self._ensemble(node, run, request)
        if node.router_type is RouterType.SWITCH:
            return await self._step(await _switched(node, request), run, request)
        return await self._step(self._split(node), run, request)

    async def _sequence(self, node: Node, run: _Run, request: Payload) -> Outcome:
        outcome: Outcome | None = None
        for step in node.steps:
            given = outcome.payload if outcome is not None and step.data is Data.RESPONSE else request
            if step.condition is not None and outcome is not None and not await _holds(step, outcome.payload):
                return Outcome(200, outcome.payload)  # it ends here, as it was meant to
            outcome = await self._step(step, run, given)
            if step.dependency is Dependency.HARD and not outcome.is_success:
                return outcome
        assert outcome is not None, "a node has steps"
        return outcome

    async def _ensemble(self, node: Node, run: _Run, request: Payload) -> Outcome:
        tasks = [asyncio.create_task(self._step(step, run, request)) for step in node.steps]
        try:
            answers: dict[str, Any] = {}
            size = 0
            for step, task in zip(node.steps, tasks, strict=True):
                outcome = await task
                if step.dependency is Dependency.HARD and not outcome.is_success:
                    return outcome
                answers[step.name] = await _answer_of(step, outcome)
                size += len(outcome.payload.body)
                if size > self._connections.max_message_bytes:
                    most = self._connections.max_message_bytes
                    raise ResourceExhausted(f"the answers of an Ensemble have more than the {most} bytes allowed")
            return Outcome(200, Payload(await off_loop(size, orjson.dumps, answers)))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _split(self, node: Node) -> Step:
        point = self._draw() * 100
        for step in node.steps:
            point -= step.weight
            if point < 0:
                return step
        return next(step for step in reversed(node.steps) if step.weight)  # rounding of the last

    async def _step(self, step: Step, run: _Run, request: Payload) -> Outcome:
        if step.renames_predictions:
            request = await request.with_instances()
        if step.node:
            return await self._node(run.graph.nodes[step.node], run, request)
        deadline = min(run.deadline, asyncio.get_running_loop().time() + run.graph.step_seconds)
        try:
            if step.url is not None:
                return await self._post(step.url, step, run, request, deadline)
            return await self._infer(step, run, request, deadline)
        except ServiceError as error:
            return Outcome(HTTP_STATUS[error.code], Payload(orjson.dumps(error_body(error))))

    async def _infer(self, step: Step, run: _Run, request: Payload, deadline: float) -> Outcome:
        document = await request.document()
        if not isinstance(document, dict) or not ("inputs" in document or "instances" in document):
            raise InvalidArgument("must hold inputs (REST v2) or instances (REST v1)", field="body")
        door = Door.REST_V2 if "inputs" in document else Door.REST_V1
        wire = WireRequest(door, step.service, request.body, request.json_length, run.headers, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._ask(run.namespace, step.service, wire)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{step.service} did not answer in time") from error
        return Outcome(200, Payload(answer.body, answer.json_length))

    async def _post(self, url: ServiceUrl, step: Step, run: _Run, request: Payload, deadline: float) -> Outcome:
        headers = self._connections.headers(url.address, run.headers)
        headers[HOPS_HEADER] = str(run.hops + 1)
        headers["content-type"] = "application/json"
        if request.json_length is not None:
            headers["content-type"] = "application/octet-stream"
            headers[_HEAD_LENGTH] = str(request.json_length)
        seconds = max(0.001, deadline - asyncio.get_running_loop().time())
        stage = f"step {step.name!r}"
        answer = await self._connections.http.post(url.address, url.path, request.body, headers, seconds, stage)
        length = answer.headers.get(_HEAD_LENGTH)
        if length is None:
            return Outcome(answer.status, Payload(answer.body))
        if not length.isdigit() or int(length) > len(answer.body):
            raise Internal(f"{stage} gave no valid answer: {_HEAD_LENGTH} is beyond the body")
        return Outcome(answer.status, Payload(answer.body, int(length)))


async def _switched(node: Node, request: Payload) -> Step:
    for step in node.steps:
        if await _holds(step, request):
            return step
    raise NotFound(message="no condition of the Switch holds for this request")


async def _holds(step: Step, payload: Payload) -> bool:
    assert step.condition is not None
    document = await payload.document()
    return bool(await off_loop(len(payload.body), step.condition.holds, document))


async def _answer_of(step: Step, outcome: Outcome) -> Any:
    if outcome.payload.json_length is not None:
        raise InvalidArgument("an Ensemble joins JSON: ask for outputs without binary_data", field="outputs")
    try:
        return await outcome.payload.document()
    except InvalidArgument as error:
        raise Internal(f"step {step.name!r} answered what is no JSON") from error


def _hops(headers: Mapping[str, str]) -> int:
    given = headers.get(HOPS_HEADER, "0")
    hops = int(given) if given.isascii() and given.isdigit() and len(given) < 4 else MAX_HOPS
    if hops >= MAX_HOPS:
        raise FailedPrecondition(f"the request has come through {MAX_HOPS} graphs already; one of them calls itself")
    return hops
