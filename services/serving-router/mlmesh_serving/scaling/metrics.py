"""What Prometheus sees of scaling (names as Knative's autoscaler has them, after the prefix)."""

from prometheus_client import Gauge

from mlmesh_serving.scaling.autoscaler import Decision

_LABELS = ("namespace", "model", "revision")

DESIRED = Gauge("mlmesh_serving_desired_replicas", "Replicas that the autoscaler wants, bounds applied", _LABELS)
ACTUAL = Gauge("mlmesh_serving_actual_replicas", "Replicas that answer", _LABELS)
WAITING = Gauge("mlmesh_serving_queue_length", "Requests that wait for a replica", _LABELS)
PANIC = Gauge("mlmesh_serving_panic_mode", "1 during a surge, in which nothing is scaled down", _LABELS)
STABLE = Gauge("mlmesh_serving_stable_value", "The metric that is scaled on, over the stable window", _LABELS)
PANIC_VALUE = Gauge("mlmesh_serving_panic_value", "The metric that is scaled on, over the panic window", _LABELS)
BURST = Gauge("mlmesh_serving_excess_burst_capacity", "Requests that find a place beyond the target burst", _LABELS)

_ALL = (DESIRED, ACTUAL, WAITING, PANIC, STABLE, PANIC_VALUE, BURST)


def show(key: tuple[str, str, int], *, wanted: int, ready: int, waiting: int, decision: Decision | None) -> None:
    """Sets a revision's gauges."""
    labels = _labels(key)
    DESIRED.labels(*labels).set(wanted)
    ACTUAL.labels(*labels).set(ready)
    WAITING.labels(*labels).set(waiting)
    if decision is not None:
        PANIC.labels(*labels).set(decision.panic)
        STABLE.labels(*labels).set(decision.stable_value)
        PANIC_VALUE.labels(*labels).set(decision.panic_value)
        BURST.labels(*labels).set(decision.excess_burst_capacity)


def forget(key: tuple[str, str, int]) -> None:
    """Removes the gauges of a revision that is gone."""
    for gauge in _ALL:
        gauge.remove(*_labels(key))


def _labels(key: tuple[str, str, int]) -> tuple[str, str, str]:
    return key[0], key[1], str(key[2])
