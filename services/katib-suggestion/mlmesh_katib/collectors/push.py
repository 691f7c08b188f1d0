"""Katib's collector Push, once called None: the trial reports by itself, to `DBManager`."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlmesh_katib.collectors.base import Collector, CollectorSpec, MetricLog, Place
from mlmesh_katib.collectors.source import read_filters


class PushCollector(Collector):
    """Reads nothing: what counts is in the database already, put there by `ReportObservationLog`.

    As in Katib, a trial that ends without having reported the objective is MetricsUnavailable.
    """

    interval_seconds = 1.0

    def poll(self, *, ended: bool = False) -> Sequence[MetricLog]:
        """See `Collector.poll`."""
        return ()


def parse_source(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks a `source`; nothing of it counts, but Katib looks at the filters of all kinds."""
    read_filters(source, where)
    return {}


def make(spec: CollectorSpec, place: Place) -> Collector:
    """Makes the collector of one start of a trial."""
    return PushCollector()
