"""Explanations: `:explain` of REST v1, as KServe has it; and `/explain` beside `/infer`, which REST v2 lacks."""

from collections.abc import Awaitable, Callable

from mlmesh_kit.access import Access
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.http import route
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlmesh_serving.access import RESOURCE
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.routes.v2 import namespace_of_path, read_body

_PATHS = (
    "/v1/models/{model}:explain",
    "/v2/models/{model}/explain",
    "/v2/models/{model}/versions/{version}/explain",
)
_HEADER_LENGTH = "inference-header-content-length"


def explain_routes(explain: Callable[[WireRequest, str], Awaitable[WireAnswer]]) -> list[Route]:
    """Makes the routes.

    Args:
        explain: Is given a request and the version of the model to be explained, empty for the one that answers.
    """

    async def answer(request: Request) -> Response:
        body = await read_body(request)
        length = request.headers.get(_HEADER_LENGTH)
        if length is not None and (not length.isdigit() or int(length) > len(body)):
            raise InvalidArgument(
                f"must be the length of the JSON part, at most the body's {len(body)}",
                field="Inference-Header-Content-Length",
            )
        asked = WireRequest(Door.EXPLAIN, request.path_params["model"], body, None if length is None else int(length))
        explained = await explain(asked, request.path_params.get("version", ""))
        return Response(explained.body, media_type="application/json")

    access = Access("infer", RESOURCE, namespace_of_path)
    return [route(path, answer, access=access, methods=["POST"]) for path in _PATHS]
