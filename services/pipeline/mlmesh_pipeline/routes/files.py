"""Logs and artifacts: `GET /apis/v2beta1/runs/{run}/tasks/{task}/log`, `.../outputs`, `.../artifacts/{name}`."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from mlmesh_kit.access import IN_DOMAIN, Access
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from mlmesh_kit.http import route
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.engine.paths import file_path
from mlmesh_pipeline.resources import AttemptState, Task
from mlmesh_pipeline.store import RunStore, TaskStore

_CHUNK = 64 << 10
_FOLLOW_SECONDS = 0.2


class FileRoutes:
    """Serves what tasks wrote.

    Args:
        runs, tasks: The database.
        work_root: Holds the logs of all runs.
    """

    def __init__(self, runs: RunStore, tasks: TaskStore, work_root: Path) -> None:
        self._runs = runs
        self._tasks = tasks
        self._work_root = work_root

    def routes(self) -> Sequence[Route]:
        """Gives the routes."""
        access = Access("get", "runs", namespace=IN_DOMAIN)
        base = "/apis/v2beta1/runs/{run_id}/tasks/{task_id}"
        return [
            route(f"{base}/log", self.log, access=access),
            route(f"{base}/outputs", self.outputs, access=access),
            route(f"{base}/artifacts/{{name}}", self.artifact, access=access),
        ]

    async def log(self, request: Request) -> Response:
        """Gives the log of a task's latest attempt, or of `attempt=N`; with `follow=true` until the attempt ends."""
        task = await asyncio.to_thread(self._task, request, "get")
        attempts = [
            one for one in await asyncio.to_thread(self._tasks.attempts_of, task.run_id) if one.task_id == task.task_id
        ]
        follow = request.query_params.get("follow", "").lower() in {"1", "true", "yes"}
        asked = request.query_params.get("attempt", "")
        if asked and not asked.isdecimal():
            raise InvalidArgument("must be a number", field="attempt")
        number = int(asked or (attempts[-1].number if attempts else 0))
        if asked and number not in {attempt.number for attempt in attempts}:
            raise NotFound("attempt", number)
        return StreamingResponse(self._read(task, number, follow), media_type="text/plain; charset=utf-8")

    async def outputs(self, request: Request) -> Response:
        """Lists the output parameters and artifacts of a task."""
        task = await asyncio.to_thread(self._task, request, "get")
        return JSONResponse(
            {
                "parameters": task.outputs.parameters,
                "artifacts": {
                    name: [
                        {
                            "name": item.name,
                            "type": item.kind,
                            "uri": item.uri,
                            "metadata": item.metadata,
                            "digest": item.digest,
                        }
                        for item in items
                    ]
                    for name, items in task.outputs.artifacts.items()
                },
            }
        )

    async def artifact(self, request: Request) -> Response:
        """Gives the bytes of an output artifact (ranges are served); of a list, the one at `index`."""
        task = await asyncio.to_thread(self._task, request, "readArtifact")
        name = request.path_params["name"]
        items = task.outputs.artifacts.get(name, [])
        index = request.query_params.get("index", "0")
        if not index.isdecimal():
            raise InvalidArgument("must be a number", field="index")
        if int(index) >= len(items):
            raise NotFound("artifact", name)
        path = file_path(items[int(index)].uri)
        if path is None or not path.is_file():
            raise FailedPrecondition(f"artifact {name!r} ({items[int(index)].uri}) is not a file on this machine")
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)

    def _task(self, request: Request, verb: str) -> Task:
        run = self._runs.get(request.path_params["run_id"])
        require_visible(verb, "runs", run.namespace, "run", run.run_id)
        return self._tasks.get(run.run_id, request.path_params["task_id"])

    async def _read(self, task: Task, number: int, follow: bool) -> AsyncIterator[bytes]:
        offset = 0
        while True:
            ended = not follow or await asyncio.to_thread(self._has_ended, task, number)
            if number == 0 and follow and not ended:
                number = await asyncio.to_thread(self._latest, task)
            path = self._work_root / task.run_id / task.task_id / f"{number}.log"
            offset = min(offset, await asyncio.to_thread(_size, path))  # the middle of a log may be dropped meanwhile
            while chunk := await asyncio.to_thread(_read_chunk, path, offset):
                offset += len(chunk)
                yield chunk
            if ended:
                return
            await asyncio.sleep(_FOLLOW_SECONDS)

    def _latest(self, task: Task) -> int:
        numbers = [one.number for one in self._tasks.attempts_of(task.run_id) if one.task_id == task.task_id]
        return max(numbers, default=0)

    def _has_ended(self, task: Task, number: int) -> bool:
        for attempt in self._tasks.attempts_of(task.run_id):
            if attempt.task_id == task.task_id and attempt.number == number:
                return attempt.state != AttemptState.RUNNING
        try:
            return self._tasks.get(task.run_id, task.task_id).state.is_final
        except NotFound:
            return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_chunk(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset, os.SEEK_SET)
            return file.read(_CHUNK)
    except FileNotFoundError:
        return b""
