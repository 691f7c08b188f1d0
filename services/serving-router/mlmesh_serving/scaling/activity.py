"""When a revision may go to zero: the conditions of Knative's pod autoscaler (pkg/reconciler/autoscaling/kpa)."""

from enum import Enum

from mlmesh_serving.scaling.spec import AutoscalerSpec

ACTIVATION_TIMEOUT_SECONDS = 610.0
"""How long replicas may take to come: Knative's progress deadline of ten minutes, and ten seconds."""


class State(Enum):
    """Of a revision: Knative's condition `Active`."""

    ACTIVATING = "Unknown"
    """Replicas are wanted that are not ready yet."""
    ACTIVE = "True"
    """It answers."""
    INACTIVE = "False"
    """Nobody asks: it is at zero, or on its way there."""


class Activity:
    """Bounds what the autoscaler wants, and takes the last replica away only when nobody will miss it.

    The last replica goes when the revision was active for a stable window, nobody asked for one, and then the grace
    period or the retention period, whichever is longer, has passed. Pure: it has no clock.

    Args:
        spec: How the revision is scaled.
        now: Seconds.
    """

    def __init__(self, spec: AutoscalerSpec, now: float) -> None:
        self._spec = spec
        first = spec.bounded(spec.scaling.initial_replicas)
        self._initialized = first == 0
        self.state = State.ACTIVATING if first else State.INACTIVE
        self._since = now

    def activate(self, now: float) -> None:
        """Notes that somebody asks for a revision that is at zero."""
        if self.state is State.INACTIVE:
            self._enter(State.ACTIVATING, now)

    def bound(self, now: float, wanted: int | None, ready: int, *, reachable: bool = True) -> int | None:
        """Tells how many replicas to ask for; None: leave it as it is.

        Args:
            now: Seconds.
            wanted: By the autoscaler; None: it has no samples.
            ready: Replicas that answer.
            reachable: Whether any traffic is routed to the revision; without, `min_replicas` does not count.
        """
        fewest = self._fewest(now, ready, reachable=reachable)
        if wanted is None and self.state is not State.ACTIVATING:
            return None
        replicas = self._spec.bounded(wanted or 0, fewest)
        threshold = max(1, self._spec.bounded(fewest, 0))
        if replicas > 0:
            self._enter(State.ACTIVE if ready >= threshold else State.ACTIVATING, now)
            return replicas
        return self._toward_zero(now, ready, threshold)

    def _fewest(self, now: float, ready: int, *, reachable: bool) -> int:
        if not self._initialized:
            hopeless = self.state is State.ACTIVATING and now - self._since >= ACTIVATION_TIMEOUT_SECONDS
            self._initialized = hopeless or ready >= self._spec.bounded(self._spec.scaling.initial_replicas, 0)
        fewest = self._spec.scaling.min_replicas if reachable else 0
        return fewest if self._initialized else max(fewest, self._spec.scaling.initial_replicas)

    def _toward_zero(self, now: float, ready: int, threshold: int) -> int | None:
        spec, passed = self._spec, now - self._since
        if self.state is State.ACTIVATING:
            if passed >= ACTIVATION_TIMEOUT_SECONDS:
                self._enter(State.INACTIVE, now)
                return 0
            if ready >= threshold:
                self._enter(State.ACTIVE, now)
            return None
        if self.state is State.ACTIVE:
            if passed >= spec.stable_window_seconds:
                self._enter(State.INACTIVE, now)
                return None
            return 1
        if passed >= spec.zero_after_seconds:
            return 0
        return None

    def _enter(self, state: State, now: float) -> None:
        if state is not self.state:
            self.state, self._since = state, now
