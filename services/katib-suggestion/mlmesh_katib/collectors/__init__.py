"""Where the metrics of a trial are read: Katib's kinds of metrics collectors, each a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.files import remove_tree

from mlmesh_katib.collectors import custom, file, prometheus, push, stdout, tensorflow_event
from mlmesh_katib.collectors.base import CollectionError, Collector, CollectorSpec, MetricLog, Place
from mlmesh_katib.collectors.source import read_object

PATH_VARIABLE = "MLMESH_METRICS_PATH"
"""Tells a trial that is a process of this machine where to write its metrics."""
DEFAULT_KIND = "StdOut"
PUSHED = frozenset({"Push", "None", "Custom"})
"""The kinds whose reports come by `DBManager` alone and are in the database already."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of collector.

    Attributes:
        parse_source: (`source`, its path for errors) → what the collector needs of it.
        make: (spec, place) → the collector of one start of a trial.
    """

    parse_source: Callable[[Mapping[str, Any], str], dict[str, Any]]
    make: Callable[[CollectorSpec, Place], Collector]


KINDS: dict[str, Kind] = {
    "StdOut": Kind(stdout.parse_source, stdout.make),
    "File": Kind(file.parse_source, file.make),
    "TensorFlowEvent": Kind(tensorflow_event.parse_source, tensorflow_event.make),
    "PrometheusMetric": Kind(prometheus.parse_source, prometheus.make),
    "Push": Kind(push.parse_source, push.make),
    "None": Kind(push.parse_source, push.make),
    "Custom": Kind(custom.parse_source, custom.make),
}


def parse(spec: Any, metrics: Sequence[str], where: str = "manifest.spec.metricsCollectorSpec") -> CollectorSpec:
    """Checks a `metricsCollectorSpec` as Katib's webhook does.

    Args:
        spec: As the user wrote it; None: there is none, which means StdOut.
        metrics: Names of the objective and the additional metrics.
        where: Path of the spec, for errors.

    Raises:
        InvalidArgument: A field is missing or wrong.
        FailedPrecondition: PrometheusMetric asks for another host, TLS or headers.
    """
    given = read_object(spec, where)
    collector = read_object(given.get("collector"), f"{where}.collector")
    name = collector.get("kind") if collector else DEFAULT_KIND
    source = read_object(given.get("source"), f"{where}.source")
    if not isinstance(name, str) or name not in KINDS:
        raise InvalidArgument(f"must be one of {', '.join(KINDS)}", field=f"{where}.collector.kind")
    path = f"{where}.collector.customCollector"
    if name == "Custom" and not read_object(collector.get("customCollector"), path):
        raise InvalidArgument("must be given for the kind Custom", field=path)
    return CollectorSpec(name, tuple(metrics), KINDS[name].parse_source(source, f"{where}.source"))


def make(spec: CollectorSpec, place: Place) -> Collector:
    """Makes the collector of one start of a trial.

    Args:
        spec: What `parse` gave.
        place: Where the trial runs.
    """
    return KINDS[spec.kind].make(spec, place)


def prepare(spec: CollectorSpec, work_dir: Path) -> dict[str, str]:
    """Makes the folders that a trial writes its metrics to, before it starts as a process of this machine.

    What an earlier attempt has written there is removed, so that it does not count for this one.

    Args:
        spec: What `parse` gave.
        work_dir: The trial's working directory, which is there; nothing of the trial runs.

    Returns:
        Environment variables that tell the trial: PATH_VARIABLE, absolute.
    """
    inner = spec.source.get("path")
    if inner is None:
        return {}
    path = work_dir / inner
    for step in reversed([path, *path.parents[: len(inner.parts) - 1]]):
        if step.is_symlink() or (step.exists() and not step.is_dir()):
            step.unlink()
    if path.is_dir():
        remove_tree(path)
    (path if spec.kind == "TensorFlowEvent" else path.parent).mkdir(parents=True, exist_ok=True)
    return {PATH_VARIABLE: str(path)}


__all__ = [
    "KINDS",
    "PATH_VARIABLE",
    "PUSHED",
    "CollectionError",
    "Collector",
    "CollectorSpec",
    "MetricLog",
    "Place",
    "make",
    "parse",
    "prepare",
]
