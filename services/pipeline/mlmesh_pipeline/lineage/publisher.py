"""Tells the metadata service what the outbox holds; while it is away, waits, and loses nothing.

What is sent is the state that a run or a task has then, not a change: sending it twice changes nothing.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from mlmesh_kit.errors import NotFound, ServiceError
from mlmesh_kit.identity import USER_HEADER
from mlmesh_kit.lease import LeaseStore
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service_pb2
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc as service_pb2_grpc

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.lineage import records
from mlmesh_pipeline.resources import Artifact, Run, RuntimeState, Task
from mlmesh_pipeline.store import OutboxStore, RunStore, TaskStore
from mlmesh_pipeline.store.outbox import Notice
from mlmesh_pipeline.store.owner import new_owner

logger = logging.getLogger(__name__)
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_BATCH = 200
_IDLE_SECONDS = 0.5
_LEASE, _LEASE_SECONDS = "outbox", 15
_CALL_SECONDS = 10.0
_REMEMBERED = 1000


class Publisher:
    """Empties the outbox into the metadata service.

    Args:
        settings: Of the service; without `metadata_address` nothing is sent, and the outbox keeps it all.
        outbox, runs, tasks: The database.
        leases: One replica publishes at a time.
    """

    def __init__(
        self, settings: Settings, outbox: OutboxStore, runs: RunStore, tasks: TaskStore, leases: LeaseStore
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._runs = runs
        self._tasks = tasks
        self._leases = leases
        self._owner = new_owner()
        self._stub: Any = None
        self._types: dict[tuple[str, str], int] = {}
        self._contexts: dict[str, tuple[int, int]] = {}
        self._executions: dict[str, int] = {}
        self._later: dict[tuple[str, str], tuple[float, int]] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publishes until left."""
        if not self._settings.metadata_address:
            yield
            return
        options = [("grpc.max_reconnect_backoff_ms", 2000), ("grpc.initial_reconnect_backoff_ms", 200)]
        async with grpc.aio.insecure_channel(self._settings.metadata_address, options=options) as channel:
            self._stub = service_pb2_grpc.MetadataStoreServiceStub(channel)
            task = asyncio.create_task(self._publish(), name="lineage")
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                with contextlib.suppress(ServiceError):
                    await asyncio.to_thread(self._leases.release, _LEASE, self._owner)

    async def _publish(self) -> None:
        away = False
        while True:
            wait = _IDLE_SECONDS
            try:
                if not await asyncio.to_thread(self._leases.claim, _LEASE, self._owner, _LEASE_SECONDS):
                    await asyncio.sleep(_LEASE_SECONDS / 3)
                    continue
                sent = await self._publish_batch()
                if away:
                    logger.info("the metadata service is back")
                    away = False
                if sent == _BATCH:
                    wait = 0
            except grpc.aio.AioRpcError as error:
                wait = self._settings.outbox_retry_seconds
                if not away:
                    logger.warning("the metadata service is away (%s): lineage waits", error.code().name)
                    away = True
                self._contexts.clear()
            except ServiceError as error:
                wait = self._settings.outbox_retry_seconds
                logger.warning("lineage waits: %s", error.message)
            except Exception:
                wait = self._settings.outbox_retry_seconds
                logger.exception("publishing lineage")
            await asyncio.sleep(wait)

    async def _publish_batch(self) -> int:
        """Sends the oldest notices; one that the metadata service refuses is put off and does not hold up others."""
        sent = 0
        renewed = time.monotonic()
        for notice in await asyncio.to_thread(self._outbox.pending, _BATCH):
            key = (notice.run_id, notice.task_id)
            not_before, tries = self._later.get(key, (0.0, 0))
            if time.monotonic() < not_before:
                continue
            if time.monotonic() - renewed > _LEASE_SECONDS / 3:
                if not await asyncio.to_thread(self._leases.renew, [_LEASE], self._owner, _LEASE_SECONDS):
                    return sent
                renewed = time.monotonic()
            try:
                await self._send(notice)
            except grpc.aio.AioRpcError as error:
                if error.code() in _AWAY:
                    raise
                logger.warning("the metadata service refused %s: %s", "/".join(key), error.details())
                await asyncio.to_thread(self._outbox.failed, notice, f"{error.code().name}: {error.details()}")
                self._later[key] = (time.monotonic() + min(300.0, 2.0**tries), tries + 1)
                continue
            self._later.pop(key, None)
            await asyncio.to_thread(self._outbox.done, notice)
            sent += 1
        return sent

    async def _send(self, notice: Notice) -> None:
        try:
            run = await asyncio.to_thread(self._runs.get, notice.run_id)
            task = await asyncio.to_thread(self._tasks.get, run.run_id, notice.task_id) if notice.task_id else None
        except NotFound:
            return
        if task is None:
            await self._send_run(run)
        elif task.state != RuntimeState.SKIPPED or task.cached_from:
            await self._send_task(run, task)

    async def _send_run(self, run: Run) -> int:
        type_id = await self._type("execution", records.DAG_EXECUTION, run)
        execution = records.run_execution(run, type_id)
        return (await self._put_execution(run, execution, [], records.DAG_EXECUTION))[0]

    async def _send_task(self, run: Run, task: Task) -> int:
        kind = records.execution_type(task.kind)
        type_id = await self._type("execution", kind, run)
        parent = await self._parent(run, task)
        cached = 0
        if task.cached_from:
            cached = await asyncio.to_thread(self._tasks.execution_of, task.cached_from)
        execution = records.task_execution(run, task, type_id, parent, cached)
        pairs = records.artifact_events(task)
        execution_id, artifact_ids = await self._put_execution(run, execution, pairs, kind)
        await asyncio.to_thread(self._tasks.set_metadata_ids, task.task_id, execution_id, artifact_ids)
        self._remember(task.task_id, execution_id)
        return execution_id

    async def _parent(self, run: Run, task: Task) -> int:
        key = task.parent_id or run.run_id
        if key not in self._executions:
            if task.parent_id:
                parent = await asyncio.to_thread(self._tasks.get, run.run_id, task.parent_id)
                found = parent.execution_id or await self._send_task(run, parent)
            else:
                found = await self._send_run(run)
            self._remember(key, found)
        return self._executions[key]

    def _remember(self, key: str, execution_id: int) -> None:
        while len(self._executions) >= _REMEMBERED:
            self._executions.pop(next(iter(self._executions)))
        self._executions[key] = execution_id

    async def _put_execution(
        self, run: Run, execution: mlmd.Execution, pairs: list[tuple[Artifact, mlmd.Event]], kind: str
    ) -> tuple[int, dict[str, int]]:
        """Writes an execution with its artifacts, events and contexts; gives the ids of it and of the artifacts."""
        contexts = await self._contexts_of(run)
        known = await self._call(
            "GetExecutionByTypeAndName",
            service_pb2.GetExecutionByTypeAndNameRequest(type_name=kind, execution_name=execution.name),
            run,
        )
        ids = await asyncio.to_thread(self._tasks.artifact_ids, [artifact.artifact_id for artifact, _ in pairs])
        seen: set[tuple[int, int]] = set()
        if known.HasField("execution"):
            execution.id = known.execution.id
            ask = service_pb2.GetEventsByExecutionIDsRequest(execution_ids=[execution.id])
            events = (await self._call("GetEventsByExecutionIDs", ask, run)).events
            seen = {(event.artifact_id, event.type) for event in events}
        request = service_pb2.PutExecutionRequest(execution=execution)
        sent: list[Artifact] = []
        for artifact, event in pairs:
            known_id = ids.get(artifact.artifact_id) or await self._find(artifact, run)
            if known_id:
                ids[artifact.artifact_id] = known_id
                if (known_id, event.type) in seen:
                    continue
                seen.add((known_id, event.type))
            pair = request.artifact_event_pairs.add()
            pair.event.CopyFrom(event)
            if known_id:
                pair.event.artifact_id = known_id
            else:
                type_id = await self._type("artifact", artifact.kind, run)
                pair.artifact.CopyFrom(records.artifact_record(artifact, type_id, run.namespace))
            sent.append(artifact)
        request = await self._with_contexts(request, contexts, run)
        answer = await self._call("PutExecution", request, run)
        for artifact, metadata_id in zip(sent, answer.artifact_ids, strict=True):
            ids[artifact.artifact_id] = metadata_id
        return answer.execution_id, ids

    async def _with_contexts(
        self, request: service_pb2.PutExecutionRequest, contexts: tuple[int, int], run: Run
    ) -> service_pb2.PutExecutionRequest:
        """Puts the contexts in whole: one with an id is updated by what is sent, so that must be all of it."""
        found = await self._call("GetContextsByID", service_pb2.GetContextsByIDRequest(context_ids=contexts), run)
        del request.contexts[:]
        request.contexts.extend(found.contexts)
        return request

    async def _find(self, artifact: Artifact, run: Run) -> int:
        request = service_pb2.GetArtifactsByExternalIdsRequest(external_ids=[artifact.artifact_id])
        try:
            found = (await self._call("GetArtifactsByExternalIds", request, run)).artifacts
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:  # what MLMD answers when none of them is there
                return 0
            raise
        return found[0].id if found else 0

    async def _contexts_of(self, run: Run) -> tuple[int, int]:
        if run.run_id not in self._contexts:
            pipeline_type = await self._type("context", records.PIPELINE, run)
            run_type = await self._type("context", records.PIPELINE_RUN, run)
            pipeline = mlmd.Context(type_id=pipeline_type, name=run.pipeline_name)
            pipeline.custom_properties["namespace"].string_value = run.namespace
            root = run.pipeline_root or self._settings.resolved_artifact_root
            pipeline_id = await self._context(records.PIPELINE, pipeline, run)
            run_id = await self._context(records.PIPELINE_RUN, records.run_context(run, run_type, root), run)
            link = mlmd.ParentContext(child_id=run_id, parent_id=pipeline_id)
            with contextlib.suppress(_AlreadyExists):
                await self._call("PutParentContexts", service_pb2.PutParentContextsRequest(parent_contexts=[link]), run)
            await asyncio.to_thread(self._runs.set_contexts, run.run_id, pipeline_id, run_id)
            while len(self._contexts) >= _REMEMBERED:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[run.run_id] = (pipeline_id, run_id)
        return self._contexts[run.run_id]

    async def _context(self, kind: str, context: mlmd.Context, run: Run) -> int:
        ask = service_pb2.GetContextByTypeAndNameRequest(type_name=kind, context_name=context.name)
        for _ in range(2):
            found = await self._call("GetContextByTypeAndName", ask, run)
            if found.HasField("context"):
                return int(found.context.id)
            with contextlib.suppress(_AlreadyExists):  # another replica was first: ask again
                answer = await self._call("PutContexts", service_pb2.PutContextsRequest(contexts=[context]), run)
                return int(answer.context_ids[0])
        raise RuntimeError(f"context {context.name} exists and cannot be found")

    async def _type(self, what: str, name: str, run: Run) -> int:
        if (what, name) not in self._types:
            method = {"context": "PutContextType", "execution": "PutExecutionType", "artifact": "PutArtifactType"}[what]
            request = getattr(service_pb2, f"{method}Request")(can_add_fields=True, can_omit_fields=True)
            getattr(request, f"{what}_type").name = name
            self._types[what, name] = (await self._call(method, request, run)).type_id
        return self._types[what, name]

    async def _call(self, method: str, request: Any, run: Run) -> Any:
        user = run.creator or self._settings.local_user
        try:
            return await getattr(self._stub, method)(request, timeout=_CALL_SECONDS, metadata=((USER_HEADER, user),))
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.ALREADY_EXISTS and method in {"PutContexts", "PutParentContexts"}:
                raise _AlreadyExists from error
            raise


class _AlreadyExists(Exception):
    pass
