"""The interface of a metrics collector."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class MetricLog:
    """One report of a metric.

    Attributes:
        time: RFC 3339, UTC.
        name: Of the metric.
        value: As it was written.
    """

    time: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class CollectorSpec:
    """An experiment's `metricsCollectorSpec`, checked.

    Attributes:
        kind: StdOut, File, TensorFlowEvent, PrometheusMetric, Push or None.
        metrics: The names that count: the objective's and the additional ones.
        source: Of `source`, what the kind needs, as plain values that `parse` made (path, format, filters, port).
    """

    kind: str
    metrics: tuple[str, ...]
    source: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trial runs.

    Attributes:
        log_path: What it prints; None: nowhere on this machine.
        work_dir: Its working directory; None: nowhere on this machine.
        host: Where its ports are.
        process_group: Of its processes, where they are on this machine and share its ports with others; None: `host` is
            the trial's alone.
    """

    log_path: Path | None
    work_dir: Path | None
    host: str = "127.0.0.1"
    process_group: int | None = None


class Collector(ABC):
    """Reads the metrics of one trial while it runs. Has the state of one reader: what was read is not read again.

    Made for each start of a trial, by `make(spec, place)`.
    """

    interval_seconds = 0.1
    """How often `poll` is called while the trial runs."""

    @abstractmethod
    def poll(self, *, ended: bool = False) -> Sequence[MetricLog]:
        """Reads what is new. Blocks shortly; called in a thread, never twice at once.

        Args:
            ended: The trial has ended: this is the last call, and a last line without an end counts.

        Returns:
            Reports in their order; those of other metrics than the spec's are left out.

        Raises:
            CollectionError: Nothing can be read, for a reason that the user should know; the trial is then
                MetricsUnavailable unless it reported before.
        """

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Gives back what it holds."""


class CollectionError(Exception):
    """Metrics could not be read; the message is for people."""
