"""The door of InferenceGraphs: what KServe serves at a graph's own host, `POST /`."""

from mlmesh_kit.access import Access
from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_kit.http import route
from mlmesh_kit.identity import current_caller
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlmesh_serving.access import GRAPHS
from mlmesh_serving.dataplane import split_model_name
from mlmesh_serving.graph.payload import Payload
from mlmesh_serving.graph.repository import GraphRepository
from mlmesh_serving.graph.router import GraphRouter
from mlmesh_serving.routes.leaving import nobody, unless_gone
from mlmesh_serving.routes.v2 import read_body

_HEAD_LENGTH = "Inference-Header-Content-Length"


def graph_routes(repository: GraphRepository, router: GraphRouter) -> list[Route]:
    """Makes the route of `/v1/graphs`.

    Args:
        repository: The graphs.
        router: Runs them.
    """

    async def act(request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb != "infer":
            raise NotFound(message=f"no such verb: {verb!r}; infer is served")
        namespace, name = split_model_name(request.path_params["graph"])
        namespace = namespace or current_caller().default_namespace
        graph = repository.ready(namespace, name)
        body = await read_body(request)
        payload = Payload(body, _json_length(request.headers.get(_HEAD_LENGTH), len(body)))
        outcome = await unless_gone(request, router.infer(graph, namespace, payload, dict(request.headers)))
        if outcome is None:
            return nobody()
        found = outcome.payload
        if found.json_length is not None:
            headers = {_HEAD_LENGTH: str(found.json_length)}
            return Response(found.body, outcome.status, headers, "application/octet-stream")
        return Response(found.body, outcome.status, media_type=_media_type(found.body))

    access = Access("infer", GRAPHS, lambda request: split_model_name(request.path_params["graph"])[0])
    return [route("/v1/graphs/{graph}:{verb}", act, access=access, methods=["POST"])]


def _json_length(given: str | None, size: int) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdigit()) or int(given) > size:
        raise InvalidArgument(f"must be the length of the JSON part, at most the body's {size}", field=_HEAD_LENGTH)
    return int(given)


def _media_type(body: bytes) -> str:
    """A service elsewhere may answer anything; what is no JSON is not called so, nor anything that a browser runs."""
    return "application/json" if body.lstrip()[:1] in (b"{", b"[") else "application/octet-stream"
