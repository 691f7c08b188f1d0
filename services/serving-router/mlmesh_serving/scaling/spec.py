"""How a revision is scaled: what its manifest asks for, and what all revisions share."""

import math
from dataclasses import dataclass, field
from enum import Enum

from mlmesh_serving.manifest import InferenceServiceSpec, ScaleMetric, ScalingSpec

DEFAULT_CONCURRENCY = 100.0
"""Knative's `container-concurrency-target-default`: what a replica is taken to bear where nothing says it."""
DEFAULT_RPS = 200.0
"""Knative's `requests-per-second-target-default`."""
MIN_TARGET = 0.01
"""Knative's least target of a replica."""


class Aggregation(Enum):
    """How the samples of a window become one value: Knative's `metric-aggregation-algorithm`."""

    LINEAR = "linear"
    """Each sample counts the same."""
    WEIGHTED_EXPONENTIAL = "weighted-exponential"
    """The newest sample counts most."""


@dataclass(frozen=True, slots=True)
class AutoscalerSettings:
    """What all revisions share; names and defaults of Knative's ConfigMap `config-autoscaler`.

    Attributes:
        max_scale_up_rate: Most replicas in one step, as a multiple of those that are ready; more than 1.
        max_scale_down_rate: Fewest, as a fraction: half of them where it is 2; more than 1.
        scale_to_zero_grace_seconds: How long the last replica stays after the revision became inactive.
        aggregation: How samples are averaged.
    """

    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_to_zero_grace_seconds: float = 30.0
    aggregation: Aggregation = Aggregation.LINEAR


@dataclass(frozen=True, slots=True)
class AutoscalerSpec:
    """All that the autoscaler of one revision goes by.

    Attributes:
        scaling: From the manifest, which is checked there.
        container_concurrency: Most requests in flight in one replica; 0: no limit.
        shared: What all revisions share.
    """

    scaling: ScalingSpec = field(default_factory=ScalingSpec)
    container_concurrency: int = 0
    shared: AutoscalerSettings = field(default_factory=AutoscalerSettings)

    @classmethod
    def of(cls, service: InferenceServiceSpec, shared: AutoscalerSettings | None = None) -> "AutoscalerSpec":
        """Gives what an InferenceService asks for."""
        return cls(service.scaling, service.container_concurrency, shared or AutoscalerSettings())

    @property
    def total(self) -> float:
        """What one replica is taken to bear, of the metric."""
        target, limit = self.scaling.target, self.container_concurrency
        if self.scaling.metric is ScaleMetric.RPS:
            return target if target is not None else DEFAULT_RPS
        if target is None:
            return float(limit) or DEFAULT_CONCURRENCY
        return min(target, limit) if limit else target

    @property
    def target_value(self) -> float:
        """What is aimed at for one replica, of the metric."""
        return max(MIN_TARGET, self.total * self.scaling.target_utilization)

    @property
    def stable_window_seconds(self) -> int:
        """Of what is averaged over."""
        return round(self.scaling.window_seconds)

    @property
    def panic_window_seconds(self) -> int:
        """Of what is averaged over to find a surge: whole seconds, one at least."""
        return max(1, math.floor(self.stable_window_seconds * self.scaling.panic_window_percentage / 100 + 0.5))

    @property
    def panic_threshold(self) -> float:
        """Wanted replicas by ready ones, from which on there is panic."""
        return self.scaling.panic_threshold_percentage / 100

    @property
    def zero_after_seconds(self) -> float:
        """How long the last replica stays after the revision became inactive."""
        return max(self.shared.scale_to_zero_grace_seconds, self.scaling.zero_retention_seconds)

    def bounded(self, replicas: int, fewest: int | None = None) -> int:
        """Gives the nearest number of replicas that the bounds allow.

        Args:
            replicas: What is wished.
            fewest: In place of `min_replicas`.
        """
        replicas = max(replicas, self.scaling.min_replicas if fewest is None else fewest)
        return min(replicas, self.scaling.max_replicas) if self.scaling.max_replicas else replicas
