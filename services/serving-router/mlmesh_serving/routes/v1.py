"""REST v1: TensorFlow Serving's form, as KServe has it."""

from mlmesh_kit.access import Access
from mlmesh_kit.errors import NotFound
from mlmesh_kit.http import route
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlmesh_serving.access import RESOURCE
from mlmesh_serving.backend import Door, WireRequest
from mlmesh_serving.dataplane import DataPlane
from mlmesh_serving.routes.v2 import json_response, namespace_of_path, read_body


def v1_routes(plane: DataPlane) -> list[Route]:
    """Makes the routes of `/v1/models`."""

    async def models(_: Request) -> Response:
        return json_response({"models": [served.stored.name for served in plane.index()]})

    async def model(request: Request) -> Response:
        name = request.path_params["model"]
        is_ready = plane.is_ready(name)
        return json_response({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    async def act(request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb != "predict":
            raise NotFound(message=f"no such verb: {verb!r}; predict is served")
        asked = WireRequest(Door.REST_V1, request.path_params["model"], await read_body(request))
        answer = await plane.submit(asked)
        return Response(answer.body, media_type="application/json")

    return [
        route("/v1/models", models, access=Access("list", RESOURCE)),
        route("/v1/models/{model}:{verb}", act, access=Access("infer", RESOURCE, namespace_of_path), methods=["POST"]),
        route("/v1/models/{model}", model, access=Access("get", RESOURCE, namespace_of_path)),
    ]
