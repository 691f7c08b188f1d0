"""Where the reports of a Katib controller's trials are read: here, or in a database manager that is allowed."""

import logging
import time
from collections.abc import Collection, Sequence

import grpc
from mlmesh_kit.errors import Unavailable
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

from mlmesh_katib.store import KatibStore
from mlmesh_katib.trial_name import locate

logger = logging.getLogger(__name__)
_SECONDS = 20.0


class ObservationSource:
    """Reads the first reports of trials.

    Args:
        store: Holds what was reported here.
        allowed: Addresses (`host:port`) of other database managers that may be connected to. Requests name one; any
            other is not connected to, since it could be an address that the caller itself cannot reach.
        seconds: For all reports of a request.
    """

    def __init__(self, store: KatibStore, allowed: Collection[str], seconds: float = _SECONDS) -> None:
        self._store = store
        self._allowed = frozenset(allowed)
        self._seconds = seconds

    def first(self, address: str, trials: Sequence[str], metric: str, most: int) -> dict[str, list[str]]:
        """Gives trial → its first values of a metric, as they were reported. Blocks.

        Args:
            address: The database manager that the request names.
            trials: Names.
            metric: Its name.
            most: Values of each trial.

        Raises:
            Unavailable: The database manager does not answer.
            FailedPrecondition: A name is that of trials in several namespaces.
        """
        if address not in self._allowed:
            return {trial: self._ours(trial, metric, most) for trial in trials}
        deadline = time.monotonic() + self._seconds
        found = {}
        with grpc.insecure_channel(address) as channel:
            stub = api_pb2_grpc.DBManagerStub(channel)
            for trial in trials:
                request = api_pb2.GetObservationLogRequest(trial_name=trial, metric_name=metric)
                try:
                    reply = stub.GetObservationLog(request, timeout=max(deadline - time.monotonic(), 0.001))
                except grpc.RpcError as error:
                    logger.warning("database manager %s: %s", address, error)
                    raise Unavailable(f"the database manager at {address} does not answer") from error
                found[trial] = [log.metric.value for log in reply.observation_log.metric_logs[:most]]
        return found

    def _ours(self, trial: str, metric: str, most: int) -> list[str]:
        return [log.value for log in self._store.get_logs(*locate(self._store, trial), metric, "", "", most)]
