"""Scaling: KServe's fields of a component, and Knative's annotations.

Sources, for names, bounds and defaults: KServe's v1beta1 ComponentExtensionSpec; Knative Serving's
pkg/apis/autoscaling and its ConfigMap config-autoscaler. A field goes before an annotation, the predictor's annotation
before one of the InferenceService.
"""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_serving.manifest.fields import as_choice, as_integer, read_count, read_duration, read_number
from mlmesh_serving.manifest.spec import ScaleMetric, ScalingSpec

PREFIX = "autoscaling.knative.dev/"
MAX_CONCURRENCY = 1000
"""Knative's bound (container-concurrency-max-limit)."""
MAX_REPLICAS = 1000
_LARGEST = 2**31 - 1
_HOUR = 3600.0
_KPA = "kpa.autoscaling.knative.dev"
# Written as here, or in camel case as in older versions of Knative.
_NAMES = (
    "activation-scale", "class", "initial-scale", "max-scale", "metric", "min-scale", "panic-threshold-percentage",
    "panic-window-percentage", "scale-down-delay", "scale-to-zero-pod-retention-period", "target",
    "target-burst-capacity", "target-utilization-percentage", "window",
)  # fmt: skip
_CAMEL = {
    "activationScale": "activation-scale",
    "initialScale": "initial-scale",
    "maxScale": "max-scale",
    "minScale": "min-scale",
    "panicThresholdPercentage": "panic-threshold-percentage",
    "panicWindowPercentage": "panic-window-percentage",
    "scaleDownDelay": "scale-down-delay",
    "scaleToZeroPodRetentionPeriod": "scale-to-zero-pod-retention-period",
    "targetBurstCapacity": "target-burst-capacity",
    "targetUtilizationPercentage": "target-utilization-percentage",
}


class _Annotations:
    """Knative's annotations, by their names without the prefix, each with where it is written."""

    def __init__(self, sources: list[tuple[Mapping[str, str], str]]) -> None:
        self._found: dict[str, tuple[str, str]] = {}
        for annotations, where in sources:
            for key, value in annotations.items():
                if key.startswith(PREFIX):
                    field, name = f"{where}[{key!r}]", key.removeprefix(PREFIX)
                    name = _CAMEL.get(name, name)
                    if name not in _NAMES:
                        raise InvalidArgument(f"is not known; known are {', '.join(_NAMES)}", field=field)
                    self._found[name] = (value, field)

    def get(self, name: str) -> tuple[str, str] | None:
        """Gives value and field of one; None: it is not there."""
        return self._found.get(name)

    def count(self, name: str, default: int, *, smallest: int = 0, largest: int = MAX_REPLICAS) -> int:
        """Reads a whole number, or raises InvalidArgument."""
        found = self.get(name)
        return default if found is None else read_count(*found, smallest=smallest, largest=largest)

    def number(self, name: str, default: float, *, smallest: float, largest: float) -> float:
        """Reads a number, or raises InvalidArgument."""
        found = self.get(name)
        return default if found is None else read_number(*found, smallest=smallest, largest=largest)

    def seconds(self, name: str, default: float, *, smallest: float = 0.0) -> float:
        """Reads a duration of at most an hour, or raises InvalidArgument."""
        found = self.get(name)
        return default if found is None else read_duration(*found, smallest=smallest, largest=_HOUR)


def parse_scaling(
    predictor: Mapping[str, Any], where: str, sources: list[tuple[Mapping[str, str], str]]
) -> ScalingSpec:
    """Reads how a model scales.

    Args:
        predictor: Has minReplicas, maxReplicas, scaleMetric, scaleTarget.
        where: The predictor.
        sources: Annotations with where they are; a later one goes before an earlier.

    Raises:
        InvalidArgument: Something is wrong, or not known.
        FailedPrecondition: Another autoscaler is asked for.
    """
    notes, default = _Annotations(sources), ScalingSpec()
    _check_class(notes)
    least = as_integer(predictor, "minReplicas", where, default=None, smallest=0, largest=MAX_REPLICAS)
    most = as_integer(predictor, "maxReplicas", where, default=None, smallest=0, largest=MAX_REPLICAS)
    least = notes.count("min-scale", default.min_replicas) if least is None else least
    most = notes.count("max-scale", default.max_replicas) if most is None else most
    if most and least > most:
        raise InvalidArgument(f"must be at least minReplicas, {least} (by default 1)", field=f"{where}.maxReplicas")
    metric = _metric(predictor, where, notes)
    window = notes.seconds("window", default.window_seconds, smallest=6.0)
    delay = notes.seconds("scale-down-delay", default.scale_down_delay_seconds)
    for name, seconds in (("window", window), ("scale-down-delay", delay)):
        found = notes.get(name)
        if found and seconds != round(seconds):
            raise InvalidArgument("must be whole seconds", field=found[1])
    return ScalingSpec(
        min_replicas=least,
        max_replicas=most,
        initial_replicas=notes.count("initial-scale", default.initial_replicas),
        activation_replicas=notes.count("activation-scale", default.activation_replicas, smallest=1),
        metric=metric,
        target=_target(predictor, where, notes),
        target_utilization=notes.number("target-utilization-percentage", 70.0, smallest=1, largest=100) / 100,
        window_seconds=window,
        panic_window_percentage=notes.number(
            "panic-window-percentage", default.panic_window_percentage, smallest=1, largest=100
        ),
        panic_threshold_percentage=notes.number(
            "panic-threshold-percentage", default.panic_threshold_percentage, smallest=110, largest=1000
        ),
        scale_down_delay_seconds=delay,
        zero_retention_seconds=notes.seconds("scale-to-zero-pod-retention-period", default.zero_retention_seconds),
        burst_capacity=_burst(notes, default.burst_capacity),
    )


def _check_class(notes: _Annotations) -> None:
    found = notes.get("class")
    if found and found[0] != _KPA:
        raise FailedPrecondition(f"{found[1]} is not served: the autoscaler is Knative's, {_KPA}")


def _metric(predictor: Mapping[str, Any], where: str, notes: _Annotations) -> ScaleMetric:
    """Gives what is watched; cpu and memory are not known to this autoscaler, and KServe refuses them with it too."""
    choices = list(ScaleMetric)
    found = notes.get("metric")
    if predictor.get("scaleMetric") is None and found is not None:
        if found[0] not in choices:
            raise InvalidArgument(f"must be one of {', '.join(choices)}", field=found[1])
        return ScaleMetric(found[0])
    return ScaleMetric(as_choice(predictor, "scaleMetric", where, choices, ScaleMetric.CONCURRENCY))


def _target(predictor: Mapping[str, Any], where: str, notes: _Annotations) -> float | None:
    target = as_integer(predictor, "scaleTarget", where, default=None, smallest=1, largest=_LARGEST)
    if target is not None:
        return float(target)
    return notes.number("target", 0, smallest=0.01, largest=_LARGEST) or None


def _burst(notes: _Annotations, default: float) -> float:
    found = notes.get("target-burst-capacity")
    if found is None or found[0] == "-1":
        return default if found is None else -1.0
    return read_number(*found, smallest=0, largest=_LARGEST)
