"""Logs and outputs of tasks: `GET /apis/v2beta1/runs/{run}/tasks/{task}/log` and `.../outputs`."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from mlmesh_kit.access import IN_DOMAIN, Access
from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_kit.http import route
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.resources import Attempt, AttemptState, Run, Task
from mlmesh_pipeline.routes.numbers import number_of
from mlmesh_pipeline.store import RunStore, TaskStore

_CHUNK = 64 << 10
_FOLLOW_SECONDS = 0.2
_YES, _NO = frozenset({"1", "true", "yes"}), frozenset({"", "0", "false", "no"})


class Logs(Protocol):
    """Reads logs of attempts that were not processes of this machine."""

    def read(self, run: Run, attempt: Attempt, follow: bool) -> AsyncIterator[bytes]:
        """Gives the log of an attempt."""


class FileRoutes:
    """Serves what tasks wrote.

    Args:
        runs, tasks: The database.
        work_root: Holds the logs of all runs.
        pods: Reads the logs of attempts that were pods.
    """

    def __init__(self, runs: RunStore, tasks: TaskStore, work_root: Path, pods: Logs | None = None) -> None:
        self._runs = runs
        self._tasks = tasks
        self._work_root = work_root
        self._pods = pods

    def routes(self) -> Sequence[Route]:
        """Gives the routes."""
        access = Access("get", "runs", namespace=IN_DOMAIN)
        base = "/apis/v2beta1/runs/{run_id}/tasks/{task_id}"
        return [
            route(f"{base}/log", self.log, access=access),
            route(f"{base}/outputs", self.outputs, access=access),
        ]

    async def log(self, request: Request) -> Response:
        """Gives the log of a task's latest attempt, or of `attempt=N`; with `follow=true` until the attempt ends."""
        task = await asyncio.to_thread(self._task, request, "get")
        attempts = [
            one for one in await asyncio.to_thread(self._tasks.attempts_of, task.run_id) if one.task_id == task.task_id
        ]
        if (asked_to_follow := request.query_params.get("follow", "false").lower()) not in _YES | _NO:
            raise InvalidArgument("must be true or false", field="follow")
        follow = asked_to_follow in _YES
        asked = number_of(request, "attempt")
        number = asked if asked is not None else attempts[-1].number if attempts else 0
        if asked is not None and number not in {attempt.number for attempt in attempts}:
            raise NotFound("attempt", number)
        pods = [one for one in attempts if one.number == number and one.pod]
        if pods and self._pods is not None:
            run = await asyncio.to_thread(self._runs.get, task.run_id)
            source = self._pods.read(run, pods[0], follow)
            return StreamingResponse(source, media_type="text/plain; charset=utf-8")
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
