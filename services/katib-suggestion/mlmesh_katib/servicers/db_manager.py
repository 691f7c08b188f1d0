"""api.v1.beta1.DBManager: the metrics that trials report."""

from datetime import UTC, datetime
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.api.v1.beta1 import api_pb2, api_pb2_grpc

from mlmesh_katib.collectors.base import MetricLog
from mlmesh_katib.store import KatibStore
from mlmesh_katib.trial_name import locate

MAX_LOGS = 100_000
MAX_NAME = 255
MAX_VALUE = 4096


class DBManagerServicer(api_pb2_grpc.DBManagerServicer):
    """Keeps observation logs.

    Args:
        store: Holds them.
    """

    def __init__(self, store: KatibStore) -> None:
        self._store = store

    def ReportObservationLog(
        self, request: api_pb2.ReportObservationLogRequest, context: Any
    ) -> api_pb2.ReportObservationLogReply:
        logs = request.observation_log.metric_logs
        if len(logs) > MAX_LOGS:
            raise InvalidArgument(f"must hold at most {MAX_LOGS} entries", field="observation_log.metric_logs")
        found = []
        for index, log in enumerate(logs):
            where = f"observation_log.metric_logs[{index}]"
            _name(log.metric.name, f"{where}.metric.name")
            if len(log.metric.value) > MAX_VALUE or "\0" in log.metric.value:
                raise InvalidArgument(
                    f"must be at most {MAX_VALUE} characters, none of them NUL", field=f"{where}.metric.value"
                )
            found.append(MetricLog(_time(log.time_stamp, f"{where}.time_stamp"), log.metric.name, log.metric.value))
        self._store.report_logs(*self._trial(request.trial_name), found)
        return api_pb2.ReportObservationLogReply()

    def GetObservationLog(
        self, request: api_pb2.GetObservationLogRequest, context: Any
    ) -> api_pb2.GetObservationLogReply:
        start = _time(request.start_time, "start_time") if request.start_time else ""
        end = _time(request.end_time, "end_time") if request.end_time else ""
        trial = self._trial(request.trial_name)
        logs = self._store.get_logs(*trial, request.metric_name, start, end, MAX_LOGS)
        reply = api_pb2.GetObservationLogReply()
        for log in logs:
            metric = api_pb2.Metric(name=log.name, value=log.value)
            reply.observation_log.metric_logs.add(time_stamp=log.time, metric=metric)
        return reply

    def DeleteObservationLog(
        self, request: api_pb2.DeleteObservationLogRequest, context: Any
    ) -> api_pb2.DeleteObservationLogReply:
        self._store.delete_logs(*self._trial(request.trial_name))
        return api_pb2.DeleteObservationLogReply()

    def _trial(self, given: str) -> tuple[str, str]:
        return locate(self._store, _name(given, "trial_name"))


def _name(name: str, field: str) -> str:
    if not 0 < len(name) <= MAX_NAME or "\0" in name:
        raise InvalidArgument(f"must be 1 to {MAX_NAME} characters, none of them NUL", field=field)
    return name


def _time(text: str, field: str) -> str:
    """Puts a time into the one form that sorts as text: UTC, microseconds."""
    try:
        given = datetime.fromisoformat(text)
        if given.tzinfo is None:
            given = given.replace(tzinfo=UTC)
        return given.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"must be a time as RFC 3339 has it, got {text[:40]!r}", field=field) from error
