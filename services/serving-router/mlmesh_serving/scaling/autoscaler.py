"""How many replicas the demand asks for: the algorithm of Knative's pod autoscaler (pkg/autoscaler/scaling).

Bounds (fewest, most, the machine) and scaling to zero are applied after it: see `activity.py` and `scaler.py`.
"""

import math
from dataclasses import dataclass

from mlmesh_serving.manifest import ScaleMetric
from mlmesh_serving.scaling.buckets import TimedBuckets, WeightedBuckets
from mlmesh_serving.scaling.delay import DelayWindow
from mlmesh_serving.scaling.spec import Aggregation, AutoscalerSpec


@dataclass(frozen=True, slots=True)
class Sample:
    """What a revision did in about a second.

    Attributes:
        concurrency: Requests in flight, averaged over the time.
        rps: Requests that came, for each second.
    """

    concurrency: float
    rps: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What the demand asks for.

    Attributes:
        replicas: Wanted, before bounds.
        panic: Whether there is a surge, in which nothing is scaled down.
        stable_value: Of the metric, over the stable window.
        panic_value: Of the metric, over the panic window.
        excess_burst_capacity: Requests in flight that would find a place beyond the burst that is provided for.
            Negative: the replicas that are ready could not take such a burst without a queue.
    """

    replicas: int
    panic: bool
    stable_value: float
    panic_value: float
    excess_burst_capacity: int


class Autoscaler:
    """Decides for one revision. Pure: it has no clock and asks nobody.

    Args:
        spec: How the revision is scaled.
        ready: Replicas that are there already. With more than one it begins in panic, so that a restart, which
            forgets the samples, takes none of them away.
        now: Seconds; what is passed later must not be less.
    """

    def __init__(self, spec: AutoscalerSpec, ready: int, now: float) -> None:
        self._spec = spec
        kind = WeightedBuckets if spec.shared.aggregation is Aggregation.WEIGHTED_EXPONENTIAL else TimedBuckets
        self._stable = kind(spec.stable_window_seconds)
        self._panic = kind(spec.panic_window_seconds)
        self._delay = DelayWindow(delay) if (delay := spec.scaling.scale_down_delay_seconds) else None
        self._panic_since: float | None = now if ready > 1 else None
        self._most_in_panic = ready

    def record(self, now: float, sample: Sample) -> None:
        """Adds a sample, one for each second."""
        value = sample.rps if self._spec.scaling.metric is ScaleMetric.RPS else sample.concurrency
        self._stable.record(now, value)
        self._panic.record(now, value)

    def decide(self, now: float, ready: int, *, reachable: bool = True) -> Decision | None:
        """Tells how many replicas there should be; None: there are no samples.

        Args:
            now: Seconds.
            ready: Replicas that answer.
            reachable: Whether any traffic is routed to the revision; without, it may go down in one step.
        """
        if self._stable.is_empty(now):
            return None
        spec = self._spec
        stable_value, panic_value = self._stable.average(now), self._panic.average(now)
        base = max(1, ready)
        most = math.ceil(spec.shared.max_scale_up_rate * base)
        fewest = math.floor(base / spec.shared.max_scale_down_rate) if reachable else 0
        raw_stable = math.ceil(stable_value / spec.target_value)
        raw_panic = math.ceil(panic_value / spec.target_value)
        for_stable = min(max(raw_stable, fewest), most)
        for_panic = min(max(raw_panic, fewest), most)
        if raw_stable > 0:  # only where there is demand: else it would keep the revision from zero
            for_stable = max(for_stable, spec.scaling.activation_replicas)
        if raw_panic > 0:
            for_panic = max(for_panic, spec.scaling.activation_replicas)

        self._notice(now, surge=raw_panic / base >= spec.panic_threshold)
        replicas = for_stable
        if self._panic_since is not None:
            self._most_in_panic = max(self._most_in_panic, for_stable, for_panic)
            replicas = self._most_in_panic
        if self._delay is not None:
            self._delay.record(now, replicas)
            replicas = self._delay.current()
        return Decision(
            replicas=replicas,
            panic=self._panic_since is not None,
            stable_value=stable_value,
            panic_value=panic_value,
            excess_burst_capacity=self._excess_burst_capacity(ready, panic_value),
        )

    def _notice(self, now: float, *, surge: bool) -> None:
        """Begins, prolongs or ends the panic. It ends when the surge has been over for a whole stable window."""
        if surge:
            self._panic_since = now
        elif self._panic_since is not None and self._panic_since + self._spec.stable_window_seconds < now:
            self._panic_since = None
            self._most_in_panic = 0

    def _excess_burst_capacity(self, ready: int, panic_value: float) -> int:
        burst = self._spec.scaling.burst_capacity
        if burst == 0:
            return 0
        if burst < 0:  # any number
            return -1
        return math.floor(ready * self._spec.total - burst - panic_value)
