"""Artifacts of tasks: `GET /apis/v2beta1/runs/{run}/tasks/{task}/artifacts/{name}`."""

import asyncio
import datetime
import os
from collections.abc import Sequence

from mlmesh_kit.access import IN_DOMAIN, Access
from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_kit.http import route
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.artifacts import ArtifactReader, Content
from mlmesh_pipeline.resources import Artifact
from mlmesh_pipeline.routes.numbers import number_of
from mlmesh_pipeline.routes.ranges import Reads, is_known, respond
from mlmesh_pipeline.store import RunStore, TaskStore

_READS_AT_A_TIME = 16


class ArtifactRoutes:
    """Serves the output artifacts of tasks.

    Args:
        runs, tasks: The database.
        reader: Reads artifacts.
    """

    def __init__(self, runs: RunStore, tasks: TaskStore, reader: ArtifactReader) -> None:
        self._runs = runs
        self._tasks = tasks
        self._reader = reader
        self._reads = Reads(_READS_AT_A_TIME)

    def routes(self) -> Sequence[Route]:
        """Gives the routes."""
        path = "/apis/v2beta1/runs/{run_id}/tasks/{task_id}/artifacts/{name}"
        return [route(path, self.artifact, access=Access("get", "runs", namespace=IN_DOMAIN))]

    async def artifact(self, request: Request) -> Response:
        """Gives the bytes of an output artifact; ranges are served.

        `index=N` takes the Nth of a list; `path=NAME` a file of a folder; `list=true` gives the names of the files as
        JSON; `download=link` a link to the object store that is good for some time.
        """
        query = request.query_params
        artifact = await asyncio.to_thread(self._artifact, request)
        if (download := query.get("download", "bytes")) not in {"bytes", "link"}:
            raise InvalidArgument("must be bytes or link", field="download")
        if (listed := query.get("list", "false").lower()) not in {"true", "false"}:
            raise InvalidArgument("must be true or false", field="list")
        member = query.get("path", "")
        if listed == "true":
            return JSONResponse(await self._reads.run(lambda: self._reader.listing(artifact)))
        if download == "link":
            return await self._link(artifact, member)
        content = await self._reads.run(lambda: self._reader.content(artifact, member))
        if content.path is not None:
            return await _file(request, content)
        return await respond(request, content, self._reads)

    async def _link(self, artifact: Artifact, member: str) -> Response:
        seconds = self._reader.link_seconds
        url = await self._reads.run(lambda: self._reader.link(artifact, member))
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return JSONResponse(
            {"url": url, "expires_at": expires.isoformat(timespec="seconds").replace("+00:00", "Z")},
            headers={"cache-control": "no-store"},
        )

    def _artifact(self, request: Request) -> Artifact:
        run = self._runs.get(request.path_params["run_id"])
        require_visible("readArtifact", "runs", run.namespace, "run", run.run_id)
        task = self._tasks.get(run.run_id, request.path_params["task_id"])
        name = request.path_params["name"]
        items = task.outputs.artifacts.get(name, [])
        index = number_of(request, "index") or 0
        if not items:
            there = ", ".join(sorted(task.outputs.artifacts)) or "none"
            raise NotFound("artifact", name, message=f"artifact {name!r} not found; the task has: {there}")
        if index >= len(items):
            raise NotFound(
                "artifact", name, message=f"artifact {name!r} not found at index {index}; it has {len(items)}"
            )
        return items[index]


async def _file(request: Request, content: Content) -> Response:
    """Gives a file of this machine, or 304 to a client that has it."""
    assert content.path is not None
    info = await asyncio.to_thread(os.stat, content.path)
    found = FileResponse(
        content.path, media_type="application/octet-stream", filename=content.filename, stat_result=info
    )
    if is_known(request, found.headers["etag"]):
        return Response(status_code=304, headers={"etag": found.headers["etag"]})
    return found
