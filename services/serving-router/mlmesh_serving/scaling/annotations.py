"""The same settings for Knative: what a model's or a function's Knative Service carries, to be scaled alike there.

Sources, for names and forms: Knative Serving's pkg/apis/autoscaling, and the template of a Knative Service.
"""

from collections.abc import Mapping
from typing import Any

from mlmesh_serving.manifest import InferenceServiceSpec, ScalingSpec
from mlmesh_serving.manifest.scaling import PREFIX

KPA = "kpa.autoscaling.knative.dev"


def scaling_annotations(scaling: ScalingSpec) -> Mapping[str, str]:
    """Gives the annotations of a revision's template that say how it is scaled.

    All are written out, so that a cluster whose defaults were changed scales alike, too.
    """
    annotations = {
        "class": KPA,
        "metric": scaling.metric.value,
        "min-scale": str(scaling.min_replicas),
        "max-scale": str(scaling.max_replicas),
        "initial-scale": str(scaling.initial_replicas),
        "activation-scale": str(scaling.activation_replicas),
        "target-utilization-percentage": _number(scaling.target_utilization * 100),
        "window": _duration(scaling.window_seconds),
        "panic-window-percentage": _number(scaling.panic_window_percentage),
        "panic-threshold-percentage": _number(scaling.panic_threshold_percentage),
        "scale-down-delay": _duration(scaling.scale_down_delay_seconds),
        "scale-to-zero-pod-retention-period": _duration(scaling.zero_retention_seconds),
        "target-burst-capacity": _number(scaling.burst_capacity),
    }
    if scaling.target is not None:
        annotations["target"] = _number(scaling.target)
    return {PREFIX + name: value for name, value in sorted(annotations.items())}


def template(service: InferenceServiceSpec) -> Mapping[str, Any]:
    """Gives what the `spec.template` of a Knative Service says of scaling and limits."""
    spec: dict[str, Any] = {"containerConcurrency": service.container_concurrency}
    if service.timeout_seconds is not None:
        spec["timeoutSeconds"] = max(1, round(service.timeout_seconds))
    return {"metadata": {"annotations": dict(scaling_annotations(service.scaling))}, "spec": spec}


def _number(value: float) -> str:
    return f"{round(value, 6):.6f}".rstrip("0").rstrip(".")


def _duration(seconds: float) -> str:
    """Gives a duration as Go writes it."""
    return f"{_number(seconds)}s"
