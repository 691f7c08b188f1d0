"""What cannot be said by transcoding: a trial's log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from mlmesh_kit.access import Access
from mlmesh_kit.errors import NotFound
from mlmesh_kit.http import route
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.store import KatibStore

_CHUNK = 256 << 10


def log_routes(store: KatibStore, engine: ExperimentEngine) -> list[Route]:
    """Makes the route of a trial's log: what it printed so far, as text."""

    async def log(request: Request) -> Response:
        parts = request.path_params
        experiment = await asyncio.to_thread(store.get_experiment, parts["namespace"], parts["experiment"])
        trial = await asyncio.to_thread(store.get_trial, experiment, parts["trial"])
        path = engine.log_path(experiment, trial.name)
        if not path.is_file():
            raise NotFound(message=f"trial {trial.name!r} has printed nothing yet")
        return StreamingResponse(_read(path), media_type="text/plain; charset=utf-8")

    access = Access("get", "trials", lambda request: str(request.path_params["namespace"]))
    path = "/katib/v1/namespaces/{namespace}/experiments/{experiment}/trials/{trial}/log"
    return [route(path, log, access=access)]


async def _read(path: Path) -> AsyncIterator[bytes]:
    """Reads a file up to where it ended when that began: a trial that prints on must not keep a reader for ever."""
    with await asyncio.to_thread(path.open, "rb") as stream:
        left = (await asyncio.to_thread(path.stat)).st_size
        while left and (chunk := await asyncio.to_thread(stream.read, min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk
