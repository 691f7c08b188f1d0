"""Warm starts: the trials of earlier experiments, from the metadata service."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unavailable
from mlmesh_kit.identity import USER_HEADER
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlmd
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service
from mlmesh_protos.ml_metadata import metadata_store_service_pb2_grpc

from mlmesh_katib.config import Settings
from mlmesh_katib.experiment import EarlierTrial
from mlmesh_katib.extensions import WarmStart
from mlmesh_katib.lineage_names import CONTEXT_TYPE, METRIC, PARAMETER
from mlmesh_katib.manifest import ExperimentSpec
from mlmesh_katib.store import KatibStore
from mlmesh_katib.suggestion import earlier_trials

_CALL_SECONDS = 10.0
_LAG_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_PAGE = 100
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class EarlierTrials:
    """Reads what earlier experiments have found.

    Args:
        store: Holds what the metadata service has not been told yet.
        settings: Of the service.
    """

    def __init__(self, store: KatibStore, settings: Settings) -> None:
        self._store = store
        self._address = settings.metadata_address
        self._metadata = ((USER_HEADER, settings.local_user),)

    async def read(self, namespace: str, spec: ExperimentSpec) -> list[EarlierTrial]:
        """Reads the trials that an experiment starts with; they are to be kept with it.

        Args:
            namespace: Of the experiment.
            spec: Of the experiment.

        Returns:
            Those that have succeeded, lie in its space and have its metrics: the last `max_trials` of each experiment,
            and of those the last ones in the order of the list, oldest first.

        Raises:
            InvalidArgument: One is in another namespace.
            FailedPrecondition: One is unknown, none has a trial that fits, or there is no metadata service.
            Unavailable: The metadata service does not answer.
        """
        wanted = spec.warm_start
        if wanted is None:
            return []
        for index, (other, _) in enumerate(wanted.experiments):
            if other not in ("", namespace):
                raise InvalidArgument(
                    f"must be of the experiment's own namespace, {namespace!r}", field=f"{wanted.field}[{index}]"
                )
        if not self._address:
            raise FailedPrecondition(f"{wanted.field}: there is no metadata service to read them from")
        found: list[EarlierTrial] = []
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = metadata_store_service_pb2_grpc.MetadataStoreServiceStub(channel)
            try:
                for index, (_, name) in enumerate(wanted.experiments):
                    await self._wait_for_lineage(namespace, name)
                    path = f"{wanted.field}[{index}]"
                    found += await self._trials(stub, f"{namespace}/{name}", wanted, path)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AWAY:
                    raise FailedPrecondition(f"{wanted.field}: the metadata service says: {error.details()}") from error
                raise Unavailable(f"{wanted.field}: the metadata service cannot be reached") from error
        fitting = [trial for trial in found if earlier_trials(spec, [trial])]
        if not fitting:
            raise FailedPrecondition(
                f"{wanted.field}: none of their {len(found)} trials that succeeded is in the space and has the metrics "
                f"{', '.join(target.metric for target in spec.objective.targets)}"
            )
        return fitting[-wanted.max_trials :]

    async def _wait_for_lineage(self, namespace: str, name: str) -> None:
        """Waits a while for what is known here and has not been told yet."""
        for _ in range(round(_LAG_SECONDS / _LOOK_SECONDS)):
            if not await asyncio.to_thread(self._store.is_untold, namespace, name):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _trials(self, stub: Any, name: str, wanted: WarmStart, path: str) -> Sequence[EarlierTrial]:
        answer = await self._call(
            stub.GetContextByTypeAndName,
            service.GetContextByTypeAndNameRequest(type_name=CONTEXT_TYPE, context_name=name),
        )
        if not answer.HasField("context"):
            raise FailedPrecondition(f"{path}: the metadata service knows no experiment {name!r}")
        options = mlmd.ListOperationOptions(max_result_size=_PAGE)
        options.order_by_field.field = mlmd.ListOperationOptions.OrderByField.ID
        options.order_by_field.is_asc = False
        found: list[EarlierTrial] = []
        while True:
            page = await self._call(
                stub.GetExecutionsByContext,
                service.GetExecutionsByContextRequest(context_id=answer.context.id, options=options),
            )
            complete = [item for item in page.executions if item.last_known_state == mlmd.Execution.COMPLETE]
            found += [_trial(execution) for execution in complete]
            if len(found) >= wanted.max_trials or not page.next_page_token:
                return found[: wanted.max_trials][::-1]
            options.next_page_token = page.next_page_token

    async def _call(self, method: Any, request: Any) -> Any:
        return await method(request, timeout=_CALL_SECONDS, metadata=self._metadata)


def _trial(execution: mlmd.Execution) -> EarlierTrial:
    texts = {key: value.string_value for key, value in execution.custom_properties.items()}
    return EarlierTrial(
        execution.name,
        {key.removeprefix(PARAMETER): value for key, value in texts.items() if key.startswith(PARAMETER)},
        {key.removeprefix(METRIC): value for key, value in texts.items() if key.startswith(METRIC)},
    )
