"""OpenAI's routes, as KServe has them (`/openai/v1/...`; also without its prefix), passed through to a model's server.

The body's `model` is the InferenceService. What the server streams goes on piece by piece; when the client goes away,
the server is hung up on.

Reference: https://platform.openai.com/docs/api-reference and KServe's `KSERVE_OPENAI_ROUTE_PREFIX`.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import orjson
from mlmesh_kit.access import IN_DOMAIN, Access, arequire
from mlmesh_kit.errors import InvalidArgument, ServiceError
from mlmesh_kit.http import route
from mlmesh_kit.identity import current_caller
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mlmesh_serving.access import RESOURCE
from mlmesh_serving.dataplane import split_model_name
from mlmesh_serving.remote.model import RemoteModel
from mlmesh_serving.routes.leaving import nobody, unless_gone
from mlmesh_serving.routes.v2 import json_response, read_body

logger = logging.getLogger(__name__)

_ROUTES = ("chat/completions", "completions", "embeddings")
_PASSED = ("content-encoding", "retry-after", "x-request-id")
_EVENTS = "text/event-stream"
_JSON = "application/json"


class OpenAIServer(Protocol):
    """A model's server that has these routes (`RemoteBackend`)."""

    model: RemoteModel

    def openai(
        self, route: str, body: bytes, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[tuple[int, Mapping[str, str], AsyncIterator[bytes]]]:
        """Asks one of the routes."""
        ...


Find = Callable[[str, str], OpenAIServer]
"""Gives the server of an InferenceService (namespace, name). Raises NotFound, or FailedPrecondition if it has none."""
Names = Callable[[str], Iterable[str]]
"""Gives the InferenceServices of a namespace that have such a server."""


def openai_routes(find: Find, names: Names) -> list[Route]:
    """Makes the routes.

    Args:
        find: Gives the server that answers for a model.
        names: Lists the models.
    """

    def passing(path: str) -> Route:
        what = next(each for each in _ROUTES if path.endswith(f"/v1/{each}"))

        async def ask(request: Request) -> Response:
            content = await read_body(request)
            document = _document(content)
            namespace, name = split_model_name(document["model"])
            namespace = await arequire("infer", RESOURCE, namespace)
            server = find(namespace or current_caller().default_namespace, name)
            called = server.model.name or name
            if called != document["model"]:
                content = orjson.dumps({**document, "model": called})
            stack = contextlib.AsyncExitStack()
            headers = dict(request.headers)
            try:
                opened = await unless_gone(request, stack.enter_async_context(server.openai(what, content, headers)))
            except BaseException:
                await stack.aclose()
                raise
            if opened is None:
                await stack.aclose()
                return nobody()
            return _Passed(stack, *opened)

        return route(path, ask, access=Access("infer", RESOURCE, IN_DOMAIN), methods=["POST"])

    async def models(_: Request) -> Response:
        namespace = current_caller().default_namespace
        data = [{"id": name, "object": "model", "created": 0, "owned_by": namespace} for name in names(namespace)]
        return json_response({"object": "list", "data": data})

    return [
        *(passing(f"{prefix}/v1/{each}") for prefix in ("/openai", "") for each in _ROUTES),
        route("/openai/v1/models", models, access=Access("list", RESOURCE)),
    ]


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"must be JSON: {error}", field="body") from error
    if not isinstance(document, dict):
        raise InvalidArgument("must be a JSON object", field="body")
    if not isinstance(document.get("model"), str) or not document["model"]:
        raise InvalidArgument("must be the name of an InferenceService", field="model")
    return document


class _Passed(StreamingResponse):
    """An answer of another server, as it comes.

    Args:
        stack: Hangs up, when it is closed.
        status: Of HTTP.
        headers: Of the answer.
        pieces: Of the body.
    """

    def __init__(
        self, stack: contextlib.AsyncExitStack, status: int, headers: Mapping[str, str], pieces: AsyncIterator[bytes]
    ) -> None:
        given = headers.get("content-type", "")
        kind = given if given.startswith((_EVENTS, _JSON)) else "application/octet-stream"
        passed = {name: headers[name] for name in _PASSED if name in headers}
        super().__init__(_flow(pieces, is_events=kind.startswith(_EVENTS)), status, passed, kind)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stack.aclose()


async def _flow(pieces: AsyncIterator[bytes], *, is_events: bool) -> AsyncIterator[bytes]:
    """Hands the pieces on. Where they break off, a stream of events ends with one that says so; another body is cut,
    which the client sees."""
    try:
        async for piece in pieces:
            yield piece
    except ServiceError as error:
        logger.warning("a stream broke off: %s", error.message)
        if not is_events:
            raise
        told = {"error": {"message": error.message, "type": "server_error", "param": None, "code": error.code.name}}
        yield b"data: " + orjson.dumps(told) + b"\n\n"
