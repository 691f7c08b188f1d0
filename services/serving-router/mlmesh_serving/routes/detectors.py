"""What the observers of a model have found: our own, beside REST v2."""

from mlmesh_kit.access import Access
from mlmesh_kit.errors import NotFound
from mlmesh_kit.http import route
from mlmesh_kit.identity import current_caller
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlmesh_serving.access import RESOURCE
from mlmesh_serving.dataplane import split_model_name
from mlmesh_serving.observers.observers import Observers
from mlmesh_serving.routes.v2 import json_response, namespace_of_path


def detector_routes(observers: Observers) -> list[Route]:
    """Makes the route `/v2/models/{model}/detectors`."""

    async def detectors(request: Request) -> Response:
        model = request.path_params["model"]
        namespace, name = split_model_name(model)
        found = observers.status(namespace or current_caller().default_namespace, name)
        if not found:
            raise NotFound(message=f"nothing looks at a model {model!r}: it has neither logger nor detectors")
        return json_response({"name": model, "revisions": found})

    return [route("/v2/models/{model}/detectors", detectors, access=Access("get", RESOURCE, namespace_of_path))]
