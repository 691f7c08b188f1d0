"""Katib's collector StdOut: reports in what a trial prints."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mlmesh_katib.collectors.base import Collector, CollectorSpec, Place
from mlmesh_katib.collectors.source import read_filters
from mlmesh_katib.collectors.stream import StreamCollector
from mlmesh_katib.collectors.tail import Tail
from mlmesh_katib.collectors.text import TextLines


def parse_source(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks a `source`; its filters are the only part that counts, as in Katib."""
    return {"filters": read_filters(source, where)}


def make(spec: CollectorSpec, place: Place) -> Collector:
    """Makes the collector of one start of a trial."""
    log = place.log_path
    tail = None if log is None else Tail(log.parent, PurePosixPath(log.name))
    return StreamCollector(tail, TextLines(spec.metrics, spec.source["filters"]))
