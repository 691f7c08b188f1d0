"""Tells the metadata service of experiments and trials, from the outbox; while it is away, waits, and loses nothing.

What is sent is the state as it is then, so that sending it twice changes nothing.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc
from mlmesh_kit.errors import ServiceError
from mlmesh_kit.identity import USER_HEADER
from mlmesh_kit.lease import LeaseStore
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc

from mlmesh_katib.config import Settings
from mlmesh_katib.experiment import REPORTED, Experiment, Trial, TrialState
from mlmesh_katib.lineage_names import ARTIFACT_TYPE, CONTEXT_TYPE, EXECUTION_TYPE, METRIC, MODEL_TYPE, PARAMETER
from mlmesh_katib.store import KatibStore

logger = logging.getLogger(__name__)

_LEASE = "outbox"
_BATCH = 100
_IDLE_SECONDS = 0.5
_AWAY_SECONDS = 2.0
_CALL_SECONDS = 10.0
_STATES = {
    TrialState.CREATED: mlmd.Execution.NEW,
    TrialState.RUNNING: mlmd.Execution.RUNNING,
    TrialState.SUCCEEDED: mlmd.Execution.COMPLETE,
    TrialState.FAILED: mlmd.Execution.FAILED,
    TrialState.METRICS_UNAVAILABLE: mlmd.Execution.FAILED,
    TrialState.EARLY_STOPPED: mlmd.Execution.COMPLETE,
    TrialState.KILLED: mlmd.Execution.CANCELED,
}


class _Types(NamedTuple):
    """Ids of types in the metadata service."""

    context: int
    execution: int
    artifact: int
    model: int


class LineagePublisher:
    """Empties the outbox into the metadata service.

    Args:
        store: Holds the outbox.
        leases: One replica publishes at a time.
        settings: Of the service; without `metadata_address` the outbox keeps it all.
    """

    def __init__(self, store: KatibStore, leases: LeaseStore, settings: Settings) -> None:
        self._store = store
        self._leases = leases
        self._settings = settings
        self._owner = uuid.uuid4().hex
        self._metadata = ((USER_HEADER, settings.local_user),)
        self._stub: Any = None
        self._types: _Types | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publishes until left."""
        if not self._settings.metadata_address:
            yield
            return
        options = [("grpc.max_reconnect_backoff_ms", 2000), ("grpc.initial_reconnect_backoff_ms", 200)]
        async with grpc.aio.insecure_channel(self._settings.metadata_address, options=options) as channel:
            self._stub = metadata_store_service_pb2_grpc.MetadataStoreServiceStub(channel)
            task = asyncio.create_task(self._publish_forever(), name="lineage")
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                with contextlib.suppress(ServiceError):
                    await asyncio.to_thread(self._leases.release, _LEASE, self._owner)

    async def _publish_forever(self) -> None:
        while True:
            wait = _IDLE_SECONDS
            try:
                if await asyncio.to_thread(self._leases.claim, _LEASE, self._owner, self._settings.lease_seconds):
                    await self._publish()
                else:
                    wait = self._settings.lease_seconds / 3
            except grpc.aio.AioRpcError as error:
                wait = _AWAY_SECONDS
                self._types = None
                logger.warning("lineage waits: %s", error.code().name, extra={"details": error.details()})
            except ServiceError as error:
                wait = _AWAY_SECONDS
                logger.warning("lineage waits: %s", error.message)
            except Exception:
                wait = _AWAY_SECONDS
                logger.exception("publishing lineage")
            await asyncio.sleep(wait)

    async def _publish(self) -> None:
        notices = await asyncio.to_thread(self._store.outbox, _BATCH)
        # The latest state is sent, so of several notices about one thing only the last needs sending.
        last = {(experiment_id, number): notice for notice, experiment_id, number in notices}
        for notice, experiment_id, number in notices:
            if last[experiment_id, number] == notice:
                try:
                    await self._tell(experiment_id, number)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                        raise
                    # It would be refused for ever, and hold up all that comes after it.
                    logger.error("lineage of experiment %s, trial %s: %s", experiment_id, number, error.details())
            await asyncio.to_thread(self._store.told, notice)

    async def _tell(self, experiment_id: int, number: int) -> None:
        experiment = await asyncio.to_thread(self._store.get_experiment_by_id, experiment_id)
        if experiment is None:
            return
        types = await self._ensure_types()
        context = _context(experiment, types.context)
        if not number:
            await self._put_context(context)
            return
        found = await asyncio.to_thread(self._store.trials, experiment_id, number - 1, 1)
        if found and found[0].number == number:
            await self._put_trial(experiment, found[0], context, types)

    async def _put_context(self, context: mlmd.Context) -> None:
        known = await self._call(
            "GetContextByTypeAndName",
            service.GetContextByTypeAndNameRequest(type_name=CONTEXT_TYPE, context_name=context.name),
        )
        if known.HasField("context"):
            context.id = known.context.id
        await self._call("PutContexts", service.PutContextsRequest(contexts=[context]))

    async def _put_trial(self, experiment: Experiment, trial: Trial, context: mlmd.Context, types: _Types) -> None:
        name = f"{experiment.namespace}/{experiment.name}/{trial.name}"
        execution = _execution(name, trial, types.execution)
        known = await self._call(
            "GetExecutionByTypeAndName",
            service.GetExecutionByTypeAndNameRequest(type_name=EXECUTION_TYPE, execution_name=name),
        )
        if known.HasField("execution"):
            execution.id = known.execution.id
        pairs = []
        if trial.state in REPORTED:
            uri = f"katib://namespaces/{experiment.namespace}/experiments/{experiment.name}/trials/{trial.name}"
            pairs.append(await self._output("observation", ARTIFACT_TYPE, _artifact(name, trial, types.artifact, uri)))
        if trial.model_uri:
            model = _artifact(name, trial, types.model, trial.model_uri)
            pairs.append(await self._output("model", MODEL_TYPE, model))
        await self._call(
            "PutExecution",
            service.PutExecutionRequest(
                execution=execution,
                artifact_event_pairs=pairs,
                contexts=[context],
                options=service.PutExecutionRequest.Options(reuse_context_if_already_exist=True),
            ),
        )

    async def _output(self, key: str, kind: str, artifact: mlmd.Artifact) -> Any:
        event = mlmd.Event(type=mlmd.Event.OUTPUT)
        event.path.steps.add(key=key)
        pair = service.PutExecutionRequest.ArtifactAndEvent(artifact=artifact, event=event)
        existing = await self._call(
            "GetArtifactByTypeAndName",
            service.GetArtifactByTypeAndNameRequest(type_name=kind, artifact_name=artifact.name),
        )
        if existing.HasField("artifact"):  # told before: its event is there too
            pair.artifact.id = existing.artifact.id
            pair.ClearField("event")
        return pair

    async def _ensure_types(self) -> _Types:
        if self._types is None:
            context = await self._call(
                "PutContextType",
                service.PutContextTypeRequest(context_type=mlmd.ContextType(name=CONTEXT_TYPE), can_omit_fields=True),
            )
            execution = await self._call(
                "PutExecutionType",
                service.PutExecutionTypeRequest(
                    execution_type=mlmd.ExecutionType(name=EXECUTION_TYPE), can_omit_fields=True
                ),
            )
            artifacts = [
                await self._call(
                    "PutArtifactType",
                    service.PutArtifactTypeRequest(artifact_type=mlmd.ArtifactType(name=name), can_omit_fields=True),
                )
                for name in (ARTIFACT_TYPE, MODEL_TYPE)
            ]
            self._types = _Types(context.type_id, execution.type_id, artifacts[0].type_id, artifacts[1].type_id)
        return self._types

    async def _call(self, method: str, request: Any) -> Any:
        return await getattr(self._stub, method)(request, timeout=_CALL_SECONDS, metadata=self._metadata)


def _context(experiment: Experiment, type_id: int) -> mlmd.Context:
    context = mlmd.Context(type_id=type_id, name=f"{experiment.namespace}/{experiment.name}")
    spec = experiment.manifest.get("spec", {})
    properties = {
        "namespace": experiment.namespace,
        "algorithm": str(spec.get("algorithm", {}).get("algorithmName", "")),
        "objective": str(spec.get("objective", {}).get("objectiveMetricName", "")),
        "state": experiment.conditions[-1].type,
    }
    for key, value in properties.items():
        context.custom_properties[key].string_value = value
    return context


def _execution(name: str, trial: Trial, type_id: int) -> mlmd.Execution:
    execution = mlmd.Execution(type_id=type_id, name=name, last_known_state=_STATES[trial.state])
    for key, value in trial.assignments.items():
        execution.custom_properties[f"{PARAMETER}{key}"].string_value = value
    for metric in trial.observation:
        execution.custom_properties[f"{METRIC}{metric.name}"].string_value = metric.latest
    execution.custom_properties["attempts"].int_value = trial.attempts
    return execution


def _artifact(name: str, trial: Trial, type_id: int, uri: str) -> mlmd.Artifact:
    artifact = mlmd.Artifact(type_id=type_id, name=name, uri=uri, state=mlmd.Artifact.LIVE)
    for metric in trial.observation:
        artifact.custom_properties[metric.name].string_value = metric.latest
    return artifact
