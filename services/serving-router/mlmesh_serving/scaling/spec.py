"""How a revision is scaled, as plain values.

Names and defaults are those of Knative Serving's ConfigMap `config-autoscaler`.
"""

import math
from dataclasses import dataclass
from enum import Enum

from mlmesh_kit.errors import InvalidArgument

DEFAULT_CONCURRENCY = 100.0
"""`container-concurrency-target-default`: what a replica is taken to bear where nothing says it."""
DEFAULT_RPS = 200.0
"""`requests-per-second-target-default`."""
MIN_TARGET = 0.01
UNLIMITED_BURST = -1.0

_MAX_SCALE = 1 << 31
_MAX_WINDOW_SECONDS = 3600


class Metric(Enum):
    """What replicas are scaled on."""

    CONCURRENCY = "concurrency"
    """Requests in flight at once, on average."""
    RPS = "rps"
    """Requests for each second."""


class Aggregation(Enum):
    """How the samples of a window become one value."""

    LINEAR = "linear"
    """Each sample counts the same."""
    WEIGHTED_EXPONENTIAL = "weighted-exponential"
    """The newest sample counts most."""


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """How a revision is scaled.

    Attributes:
        min_replicas: Fewest; 0: it is scaled to zero when nobody asks.
        max_replicas: Most; 0: as many as the machine gives.
        initial_scale: Replicas that a new revision starts with.
        activation_scale: Fewest while there is any demand.
        metric: What is scaled on.
        target: Of the metric, for each replica; None: container_concurrency, or the default of the metric.
        target_utilization: Share of the target that is aimed at, in (0, 1].
        container_concurrency: Most requests in flight in one replica; 0: no limit.
        stable_window_seconds: What is averaged over.
        panic_window_percentage: The panic window, of the stable window.
        panic_threshold_percentage: Of what the replicas bear; from it on there is panic.
        max_scale_up_rate: Most replicas in one step, as a multiple of those that are ready.
        max_scale_down_rate: Fewest, as a fraction.
        scale_down_delay_seconds: How long there has to be less demand before replicas go.
        scale_to_zero_grace_seconds: How long the last replica stays after the revision became inactive.
        scale_to_zero_retention_seconds: The same, as the revision asks for it; the longer one counts.
        target_burst_capacity: Requests in flight beyond those now that should find a place at once; -1: any number.
        aggregation: How samples are averaged.

    Raises:
        InvalidArgument: A value is out of bounds (Knative's); names the attributes.
    """

    min_replicas: int = 1
    max_replicas: int = 0
    initial_scale: int = 1
    activation_scale: int = 1
    metric: Metric = Metric.CONCURRENCY
    target: float | None = None
    target_utilization: float = 0.7
    container_concurrency: int = 0
    stable_window_seconds: int = 60
    panic_window_percentage: float = 10.0
    panic_threshold_percentage: float = 200.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_down_delay_seconds: int = 0
    scale_to_zero_grace_seconds: float = 30.0
    scale_to_zero_retention_seconds: float = 0.0
    target_burst_capacity: float = 211.0
    aggregation: Aggregation = Aggregation.LINEAR

    def __post_init__(self) -> None:
        bounds = (
            ("min_replicas", 0, _MAX_SCALE),
            ("max_replicas", 0, _MAX_SCALE),
            ("initial_scale", 0, _MAX_SCALE),
            ("activation_scale", 1, _MAX_SCALE),
            ("target", MIN_TARGET, 1e9),
            ("target_utilization", 0.01, 1.0),
            ("container_concurrency", 0, 1000),
            ("stable_window_seconds", 6, _MAX_WINDOW_SECONDS),
            ("panic_window_percentage", 1.0, 100.0),
            ("panic_threshold_percentage", 110.0, 1000.0),
            ("max_scale_up_rate", 1.01, 1e9),
            ("max_scale_down_rate", 1.01, 1e9),
            ("scale_down_delay_seconds", 0, _MAX_WINDOW_SECONDS),
            ("scale_to_zero_grace_seconds", 0.0, _MAX_WINDOW_SECONDS),
            ("scale_to_zero_retention_seconds", 0.0, _MAX_WINDOW_SECONDS),
        )
        wrong = [
            (name, f"must be between {low:g} and {high:g}")
            for name, low, high in bounds
            if (value := getattr(self, name)) is not None and not low <= value <= high
        ]
        burst = self.target_burst_capacity
        if not (burst == UNLIMITED_BURST or 0 <= burst < math.inf):
            wrong.append(("target_burst_capacity", "must be -1, 0 or more"))
        if 0 < self.max_replicas < self.min_replicas:
            wrong.append(("max_replicas", "must be 0 or at least the fewest replicas"))
        if wrong:
            raise InvalidArgument.of(wrong)

    @property
    def total(self) -> float:
        """What one replica is taken to bear, of the metric."""
        if self.metric is Metric.RPS:
            return self.target if self.target is not None else DEFAULT_RPS
        if self.target is None:
            return float(self.container_concurrency) or DEFAULT_CONCURRENCY
        return min(self.target, self.container_concurrency) if self.container_concurrency else self.target

    @property
    def target_value(self) -> float:
        """What is aimed at for one replica, of the metric."""
        return max(MIN_TARGET, self.total * self.target_utilization)

    @property
    def panic_window_seconds(self) -> int:
        """Of what is averaged over to find a surge: whole seconds, one at least."""
        return max(1, math.floor(self.stable_window_seconds * self.panic_window_percentage / 100 + 0.5))

    @property
    def panic_threshold(self) -> float:
        """Wanted replicas by ready ones, from which on there is panic."""
        return self.panic_threshold_percentage / 100

    def bounded(self, replicas: int, fewest: int | None = None) -> int:
        """Gives the nearest number of replicas that the bounds allow.

        Args:
            replicas: What is wished.
            fewest: In place of `min_replicas`.
        """
        replicas = max(replicas, self.min_replicas if fewest is None else fewest)
        return min(replicas, self.max_replicas) if self.max_replicas else replicas
