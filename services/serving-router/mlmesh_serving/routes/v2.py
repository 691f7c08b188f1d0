"""REST v2: the Open Inference Protocol, with binary tensor data and the model repository extension."""

import asyncio
from typing import Any

import orjson
from mlmesh_kit.access import PUBLIC, Access
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.http import route
from mlmesh_kit.raw_routes import RawRequest, RawResponse, RawRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlmesh_serving import __version__
from mlmesh_serving.access import RESOURCE
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.dataplane import EXTENSIONS, SERVER_NAME, DataPlane, split_model_name
from mlmesh_serving.futures import mapped
from mlmesh_serving.headers import LazyHeaders
from mlmesh_serving.repository import State

_MODEL_PATHS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
_HEADER_LENGTH = "inference-header-content-length"


def json_response(content: Any, status_code: int = 200) -> Response:
    """Answers JSON."""
    return Response(orjson.dumps(content), status_code, media_type="application/json")


def namespace_of_path(request: Request | RawRequest) -> str:
    """Reads the namespace from the model's name in the path."""
    return split_model_name(request.path_params["model"])[0]


async def read_body(request: Request) -> bytes:
    """Reads a body that is not compressed.

    Raises:
        InvalidArgument: It is compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise InvalidArgument(f"must be identity, got {encoding!r}", field="Content-Encoding")
    return await request.body()


def v2_routes(plane: DataPlane) -> list[Route]:
    """Makes the routes of `/v2`."""

    async def server_metadata(_: Request) -> Response:
        return json_response({"name": SERVER_NAME, "version": __version__, "extensions": EXTENSIONS})

    async def live(_: Request) -> Response:
        return json_response({"live": True})

    async def ready(_: Request) -> Response:
        is_ready = plane.is_server_ready()
        return json_response({"ready": is_ready}, 200 if is_ready else 503)

    async def model_metadata(request: Request) -> Response:
        found = plane.metadata(request.path_params["model"], request.path_params.get("version", ""))
        return json_response(
            {
                "name": found.name,
                "versions": found.versions,
                "platform": found.platform,
                "inputs": [{"name": i.name, "datatype": i.datatype, "shape": i.shape} for i in found.inputs],
                "outputs": [{"name": o.name, "datatype": o.datatype, "shape": o.shape} for o in found.outputs],
            }
        )

    async def model_ready(request: Request) -> Response:
        name = request.path_params["model"]
        is_ready = plane.is_ready(name, request.path_params.get("version", ""))
        return json_response({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    async def index(request: Request) -> Response:
        content = await read_body(request)
        body = _parse(content)
        return json_response(
            [
                {
                    "name": served.stored.name,
                    "version": str(served.ready_revision or served.stored.revision),
                    "state": "READY" if served.is_answering else _STATES[served.state],
                    "reason": served.message,
                }
                for served in plane.index(ready_only=isinstance(body, dict) and bool(body.get("ready")))
            ]
        )

    async def load(request: Request) -> Response:
        content = await read_body(request)
        body = _parse(content)
        if isinstance(body, dict) and body.get("parameters"):
            raise InvalidArgument("are not known; a model is configured by its InferenceService", field="parameters")
        await plane.load(request.path_params["model"])
        return json_response({})

    async def unload(request: Request) -> Response:
        await plane.unload(request.path_params["model"])
        return json_response({})

    get = Access("get", RESOURCE, namespace_of_path)
    change = Access("update", RESOURCE, namespace_of_path)
    routes = [
        route("/v2", server_metadata, access=PUBLIC),
        route("/v2/health/live", live, access=PUBLIC),
        route("/v2/health/ready", ready, access=PUBLIC),
        route("/v2/repository/index", index, access=Access("list", RESOURCE), methods=["POST"]),
        route("/v2/repository/models/{model}/load", load, access=change, methods=["POST"]),
        route("/v2/repository/models/{model}/unload", unload, access=change, methods=["POST"]),
    ]
    for path in _MODEL_PATHS:
        routes += [route(path, model_metadata, access=get), route(f"{path}/ready", model_ready, access=get)]
    return routes


def v2_raw_routes(plane: DataPlane) -> list[RawRoute]:
    """Makes the routes of `/v2` that answer tensors."""

    def infer(request: RawRequest) -> "asyncio.Future[RawResponse]":
        parameters = request.path_params
        length = _json_length(request.body, request.headers.get(_HEADER_LENGTH))
        headers = LazyHeaders(request.headers.items)
        asked = WireRequest(Door.REST_V2, parameters["model"], request.body, length, headers)
        return mapped(plane.submit(asked, parameters.get("version", "")), _response)

    return [RawRoute(f"{path}/infer", infer, Access("infer", RESOURCE, namespace_of_path)) for path in _MODEL_PATHS]


def _response(answer: WireAnswer) -> RawResponse:
    if answer.json_length is None:
        return RawResponse(answer.body)
    headers = (("Inference-Header-Content-Length", str(answer.json_length)),)
    return RawResponse(answer.body, "application/octet-stream", headers)


_STATES = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.FAILED: "UNAVAILABLE",
    State.UNLOADED: "UNAVAILABLE",
}


def _json_length(content: bytes, header: str | None) -> int | None:
    if header is None:
        return None
    if not header.isdecimal() or int(header) > len(content):
        raise InvalidArgument(
            f"must be the length of the JSON part, at most the body's {len(content)}",
            field="Inference-Header-Content-Length",
        )
    return int(header)


def _parse(content: bytes) -> Any:
    try:
        return orjson.loads(content) if content else {}
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"must be JSON: {error}", field="body") from error
