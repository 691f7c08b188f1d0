"""REST v1: TensorFlow Serving's form, as KServe has it."""

import asyncio

from mlmesh_kit.access import Access
from mlmesh_kit.errors import NotFound
from mlmesh_kit.http import route
from mlmesh_kit.raw_routes import RawRequest, RawResponse, RawRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlmesh_serving.access import RESOURCE
from mlmesh_serving.backend import Door, WireRequest
from mlmesh_serving.dataplane import DataPlane
from mlmesh_serving.futures import mapped
from mlmesh_serving.headers import LazyHeaders
from mlmesh_serving.routes.v2 import json_response, namespace_of_path


def v1_routes(plane: DataPlane) -> list[Route]:
    """Makes the routes of `/v1/models`."""

    async def models(_: Request) -> Response:
        return json_response({"models": [served.stored.name for served in plane.index()]})

    async def model(request: Request) -> Response:
        name = request.path_params["model"]
        is_ready = plane.is_ready(name)
        return json_response({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    async def act(request: Request) -> Response:
        raise NotFound(message=f"no such verb: {request.path_params['verb']!r}; predict is served")

    return [
        route("/v1/models", models, access=Access("list", RESOURCE)),
        route("/v1/models/{model}:{verb}", act, access=Access("infer", RESOURCE, namespace_of_path), methods=["POST"]),
        route("/v1/models/{model}", model, access=Access("get", RESOURCE, namespace_of_path)),
    ]


def v1_raw_routes(plane: DataPlane) -> list[RawRoute]:
    """Makes the routes of `/v1/models` that answer tensors."""

    def predict(request: RawRequest) -> "asyncio.Future[RawResponse]":
        headers = LazyHeaders(request.headers.items)
        asked = WireRequest(Door.REST_V1, request.path_params["model"], request.body, headers=headers)
        return mapped(plane.submit(asked), lambda answer: RawResponse(answer.body))

    return [RawRoute("/v1/models/{model}:predict", predict, Access("infer", RESOURCE, namespace_of_path))]
