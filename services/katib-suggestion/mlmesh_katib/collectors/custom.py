"""Katib's collector Custom: a container of the user's, which reads the metrics and reports them to `DBManager`."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlmesh_katib.collectors.base import CollectionError, Collector, CollectorSpec, MetricLog, Place
from mlmesh_katib.collectors.source import read_filters


class CustomCollector(Collector):
    """Reads nothing. The container is not run: Katib's webhook puts it into the pods of Katib's own trials alone.

    What is reported to `DBManager` counts, so that the user may have it run elsewhere.
    """

    interval_seconds = 1.0

    def poll(self, *, ended: bool = False) -> Sequence[MetricLog]:
        """See `Collector.poll`."""
        if ended:
            raise CollectionError(
                "its collector is Custom, whose container is not run, and nothing reported its metrics"
            )
        return ()


def parse_source(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks a `source`; nothing of it counts, but Katib looks at the filters of all kinds."""
    read_filters(source, where)
    return {}


def make(spec: CollectorSpec, place: Place) -> Collector:
    """Makes the collector of one start of a trial."""
    return CustomCollector()
