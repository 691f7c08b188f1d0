"""The second port: what gRPC transcoding cannot say, with the same caller, access check and errors as gRPC."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlmesh_kit.access import PUBLIC, AccessRule
from mlmesh_kit.errors import ServiceError
from mlmesh_kit.http_errors import error_response, plain_error
from mlmesh_kit.identity import USER_HEADER
from mlmesh_kit.interceptor import Surroundings, escaped, one_user
from mlmesh_kit.raw_routes import RawFront, RawRoute, ServedRoute

logger = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]
_AROUND = "mlmesh_surroundings"


def route(path: str, endpoint: Endpoint, *, access: AccessRule, methods: Sequence[str] = ("GET",)) -> Route:
    """Makes a starlette route that is guarded as an RPC is.

    Args:
        path: Starlette path (`/v2/models/{name}`; `{rest:path}` takes slashes).
        endpoint: Async; raises `mlmesh_kit.errors`.
        access: The rule; its namespace is a function of the request, IN_DOMAIN, or None.
        methods: HTTP methods served.
    """

    async def guarded(request: Request) -> Response:
        around: Surroundings = getattr(request.app.state, _AROUND)
        headers = [(k, v) for k, v in request.headers.items() if k in {"traceparent", "tracestate"}]
        with around.observed(f"{request.method} {path}", headers) as outcome:
            try:
                await around.admit(access, one_user(request.headers.getlist(USER_HEADER)), request)
                return await endpoint(request)
            except HTTPException:
                outcome[0] = "INVALID_ARGUMENT"
                raise
            except ServiceError as error:
                outcome[0] = error.code.name
                return error_response(error)
            except Exception as error:
                outcome[0] = "INTERNAL"
                return error_response(escaped(error))

    return Route(path, guarded, methods=list(methods), name=path)


class BodyLimit:
    """Refuses a body larger than the limit, before and while it is read.

    Args:
        app: What is guarded.
        max_bytes: Largest body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"")
        if declared.isdigit() and int(declared) > self._max:
            await self._refusal()(scope, receive, send)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max:
                raise HTTPException(413, self._text())
            return message

        await self._app(scope, limited, send)

    def _text(self) -> str:
        return f"the body is larger than the {self._max} bytes allowed"

    def _refusal(self) -> JSONResponse:
        return JSONResponse(plain_error(413, self._text()), status_code=413, headers={"Connection": "close"})


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = error.detail
    if error.status_code == 404:
        text = f"no such path: {request.url.path}"
    elif error.status_code == 405:
        text = f"{request.method} is not served at {request.url.path}"
    return JSONResponse(plain_error(error.status_code, text), status_code=error.status_code, headers=error.headers)


def create_app(
    routes: Sequence[Route],
    surroundings: Surroundings,
    is_serving: Callable[[], bool],
    raw_routes: Sequence[RawRoute] = (),
) -> ASGIApp:
    """Makes the application of the second port: the service's routes, `/metrics` and `/healthz`."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        serving = is_serving()
        return JSONResponse({"status": "SERVING" if serving else "NOT_SERVING"}, status_code=200 if serving else 503)

    own = [route("/metrics", metrics, access=PUBLIC), route("/healthz", healthz, access=PUBLIC)]
    served = {raw.path: ServedRoute(raw, surroundings) for raw in raw_routes}
    known = [Route(path, one, methods=["POST"]) for path, one in served.items()]  # for what other methods are told
    app = Starlette(routes=[*known, *routes, *own], exception_handlers={HTTPException: _http_exception})
    setattr(app.state, _AROUND, surroundings)
    return BodyLimit(RawFront(app, served) if served else app, surroundings.settings.max_message_bytes)
