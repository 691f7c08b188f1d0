"""Raw routes: POST requests that are answered as bytes, past Starlette's routing and middleware.

All that surrounds a route of `mlmesh_kit.http` surrounds these: caller, access, metrics, trace, limits, errors.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from mlmesh_kit.access import IN_DOMAIN, Access, AccessRule, namespace_of
from mlmesh_kit.errors import InvalidArgument, ServiceError, Unavailable
from mlmesh_kit.http_errors import error_response, plain_error
from mlmesh_kit.identity import ANONYMOUS, USER_HEADER, Caller
from mlmesh_kit.interceptor import Surroundings, escaped
from mlmesh_kit.observation import Observation

_USER: Final = USER_HEADER.encode()
_TRACE: Final = frozenset({b"traceparent", b"tracestate"})
_WATCH_SECONDS: Final = 0.05
"""Whether the client is still there is looked at only for answers that take longer: most do not, and it costs."""


class RawRequest:
    """A request that is answered as bytes.

    Attributes:
        path_params: What stands for the braces of the route's path, percent-decoded.
        body: The bytes, whole; empty where an access rule looks at the request, for then they have not come yet.
        caller: Who calls, and in which namespace.
    """

    __slots__ = ("_headers", "body", "caller", "path_params")

    def __init__(self, path_params: Mapping[str, str], headers: list[tuple[bytes, bytes]]) -> None:
        self._headers = headers
        self.path_params = path_params
        self.body = b""
        self.caller: Caller = ANONYMOUS

    @property
    def headers(self) -> Headers:
        """What the client sent along."""
        return Headers(raw=self._headers)


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer with status 200.

    Args:
        body: The bytes, whole.
        content_type: Of them.
        headers: Further ones.
    """

    body: bytes
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()


RawHandler = Callable[[RawRequest], RawResponse | Awaitable[RawResponse]]


@dataclass(frozen=True, slots=True)
class RawRoute:
    """A path whose POST requests are answered as bytes.

    Args:
        path: As of Starlette; its parameters take no converters (`/v2/models/{model}/infer`).
        handler: Called on the event loop with the request. Gives the answer, or a future of it (cheap: no task is
            made), or is `async def`. The future or task is cancelled when the client goes away. Errors are raised as
            anywhere: `mlmesh_kit.errors`. A body is never compressed: Content-Encoding is refused.
        access: As of `mlmesh_kit.http.route`: its namespace is a function of the request, IN_DOMAIN, or None.
    """

    path: str
    handler: RawHandler
    access: AccessRule


class ServedRoute:
    """A raw route in its surroundings, as an ASGI application.

    Args:
        raw: The route.
        around: Caller, access, traces, metrics.
    """

    def __init__(self, raw: RawRoute, around: Surroundings) -> None:
        self._handler = raw.handler
        self._rule = raw.access
        self._asks = isinstance(raw.access, Access) and raw.access.namespace is not IN_DOMAIN
        self._name = f"POST {raw.path}"
        self._around = around

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        request = RawRequest(scope["path_params"], scope["headers"])
        users: list[str] = []
        trace: list[tuple[str, str]] = []
        encoding = b"identity"
        for name, value in scope["headers"]:
            if name == _USER:
                users.append(value.decode("latin-1"))
            elif name in _TRACE:
                trace.append((name.decode(), value.decode("latin-1")))
            elif name == b"content-encoding":
                encoding = value
        observation = Observation(self._name, self._around.span(self._name, trace))
        code = "CANCELLED"
        failed: JSONResponse | None = None
        try:
            answer = await self._answer(request, users, encoding, receive)
            code = "OK"
        except ClientDisconnect:
            return
        except HTTPException as error:  # of BodyLimit
            code = "INVALID_ARGUMENT"
            failed = JSONResponse(plain_error(error.status_code, error.detail), error.status_code)
        except ServiceError as error:
            code = error.code.name
            failed = error_response(error)
        except Exception as error:
            code = "INTERNAL"
            failed = error_response(escaped(error))
        finally:
            observation.end(code)
        if failed is not None:
            await failed(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(answer.body)), (b"content-type", answer.content_type.encode())]
        headers += ((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, request: RawRequest, users: list[str], encoding: bytes, receive: Receive) -> RawResponse:
        await self._admit(request, users)
        if encoding != b"identity":
            text = f"must be identity, got {encoding.decode('latin-1')[:40]!r}"
            raise InvalidArgument(text, field="Content-Encoding")
        request.body = await _read(receive)
        answer = self._handler(request)
        return answer if isinstance(answer, RawResponse) else await _settle(answer, receive)

    async def _admit(self, request: RawRequest, users: list[str]) -> None:
        wanted = namespace_of(self._rule, request) if self._asks else ""  # type: ignore[arg-type]
        found = self._around.admit_fast(self._rule, self._around.caller(users), wanted)
        request.caller = found if isinstance(found, Caller) else await found


class RawFront:
    """Takes the POST requests of raw routes, and leaves the others to the application behind.

    Args:
        app: The application behind.
        served: By path.
    """

    def __init__(self, app: ASGIApp, served: Mapping[str, ServedRoute]) -> None:
        self._app = app
        self._served = [(compile_path(path)[0].match, one) for path, one in served.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            for match, app in self._served:
                found = match(path)
                if found is not None:
                    scope["path_params"] = found.groupdict()
                    await app(scope, receive, send)
                    return
        await self._app(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    """Reads a body to its end.

    Raises:
        ClientDisconnect: It ended early.
        HTTPException: It is larger than the limit (see `BodyLimit`).
    """
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if not message.get("more_body", False) and not parts:
            body: bytes = message.get("body", b"")
            return body
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _settle(answer: Awaitable[RawResponse], receive: Receive) -> RawResponse:
    """Waits for an answer as long as the client does.

    Raises:
        ClientDisconnect: The client went away; the answer was cancelled.
        Unavailable: Somebody else cancelled it.
    """
    future = asyncio.ensure_future(answer)
    watcher: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(_cancel_once_gone(future, receive))

    timer = future.get_loop().call_later(_WATCH_SECONDS, watch)
    try:
        return await future
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        if watcher is not None and watcher.done():
            raise ClientDisconnect from None
        raise Unavailable("the service gave the request up; try again") from error
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def _cancel_once_gone(future: "asyncio.Future[RawResponse]", receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    future.cancel()
