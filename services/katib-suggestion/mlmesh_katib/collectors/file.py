"""Katib's collector File: reports in a file that a trial writes, as text or as lines of JSON."""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.collectors.base import Collector, CollectorSpec, Place
from mlmesh_katib.collectors.json_lines import JsonLines
from mlmesh_katib.collectors.source import read_filters, read_object, read_path
from mlmesh_katib.collectors.stream import StreamCollector
from mlmesh_katib.collectors.tail import Tail
from mlmesh_katib.collectors.text import TextLines

DEFAULT_PATH = "/var/log/katib/metrics.log"
_FORMATS = ("TEXT", "JSON")


def parse_source(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks a `source`: the path, the format, and filters where the format is text.

    Raises:
        InvalidArgument: A field is wrong.
    """
    path, form = read_path(source, where, kind="File", default=DEFAULT_PATH)
    form = form or "TEXT"
    if form not in _FORMATS:
        raise InvalidArgument(f"must be one of {', '.join(_FORMATS)}", field=f"{where}.fileSystemPath.format")
    if form == "JSON" and read_object(source.get("filter"), f"{where}.filter"):
        raise InvalidArgument("must be left out where the format is JSON", field=f"{where}.filter")
    return {"path": path, "format": form, "filters": read_filters(source, where)}


def make(spec: CollectorSpec, place: Place) -> Collector:
    """Makes the collector of one start of a trial."""
    tail = None if place.work_dir is None else Tail(place.work_dir, spec.source["path"])
    if spec.source["format"] == "JSON":
        return StreamCollector(tail, JsonLines(spec.metrics))
    return StreamCollector(tail, TextLines(spec.metrics, spec.source["filters"]))
