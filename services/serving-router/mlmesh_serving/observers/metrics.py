"""What Prometheus is told of those who look at predictions."""

from prometheus_client import Counter, Gauge

_MODEL = ["namespace", "model"]

DROPPED = Counter(
    "mlmesh_serving_observations_dropped_total",
    "What a consumer did not see: queue_full, busy, rate, too_large, sink_full, closing, process_ended, error",
    [*_MODEL, "consumer", "reason"],
)
EVENTS = Counter(
    "mlmesh_serving_payload_events_total",
    "CloudEvents: sent, rejected, failed, withheld",
    [*_MODEL, "outcome"],
)
INSTANCES = Counter(
    "mlmesh_serving_detector_instances_total", "Instances that a detector was given", [*_MODEL, "detector"]
)
OUTLIERS = Counter("mlmesh_serving_outliers_total", "Instances that were outliers", [*_MODEL, "detector"])
WINDOWS = Counter("mlmesh_serving_drift_windows_total", "Windows tested for drift", [*_MODEL, "detector"])
DRIFTS = Counter("mlmesh_serving_drifts_total", "Windows that differed from the reference", [*_MODEL, "detector"])
P_VALUE = Gauge("mlmesh_serving_drift_p_value", "Smallest p-value of the last window", [*_MODEL, "detector"])
RESTARTS = Counter("mlmesh_serving_observer_restarts_total", "How often the process that looks at predictions ended")
