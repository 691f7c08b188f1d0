"""What cannot be said by transcoding: a trial's log."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from mlmesh_kit.access import Access
from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_kit.http import route
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mlmesh_katib.engine import ExperimentEngine
from mlmesh_katib.experiment import Experiment
from mlmesh_katib.store import KatibStore

_CHUNK = 256 << 10
_FOLLOW_SECONDS = 0.2


def log_routes(store: KatibStore, engine: ExperimentEngine) -> list[Route]:
    """Makes the route of a trial's log: what it printed so far, as text; with `follow=true` until the trial ends."""

    async def log(request: Request) -> Response:
        parts = request.path_params
        experiment = await asyncio.to_thread(store.get_experiment, parts["namespace"], parts["experiment"])
        trial = await asyncio.to_thread(store.get_trial, experiment, parts["trial"])
        path = engine.log_path(experiment, trial.name)
        asked = request.query_params.get("follow", "false")
        if asked not in ("true", "false"):
            raise InvalidArgument("must be true or false", field="follow")
        if asked == "true":
            content = _follow(path, lambda: _has_ended(store, experiment, trial.name))
            return StreamingResponse(content, media_type="text/plain; charset=utf-8")
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


async def _follow(path: Path, has_ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Reads a file until a trial has ended; one that is not there yet is waited for."""
    offset = 0
    while True:
        ended = await asyncio.to_thread(has_ended)
        # A trial that runs again begins a new log, and the middle of a long one is dropped: then it is shorter.
        offset = min(offset, await asyncio.to_thread(_size, path))
        while chunk := await asyncio.to_thread(_read_chunk, path, offset):
            offset += len(chunk)
            yield chunk
        if ended:
            return
        await asyncio.sleep(_FOLLOW_SECONDS)


def _has_ended(store: KatibStore, experiment: Experiment, trial: str) -> bool:
    try:
        return store.get_trial(experiment, trial).state.is_final
    except NotFound:  # deleted meanwhile
        return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_chunk(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(_CHUNK)
    except FileNotFoundError:
        return b""
