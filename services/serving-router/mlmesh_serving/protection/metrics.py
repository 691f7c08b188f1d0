"""What Prometheus sees of protection. The label `model` is the name that the parts were given."""

from prometheus_client import Counter, Gauge

REFUSED = Counter("mlmesh_serving_refused_total", "Requests refused", ["model", "reason"])
LATE = Counter("mlmesh_serving_deadline_exceeded_total", "Requests whose deadline passed", ["model"])
RETRIES = Counter("mlmesh_serving_retries_total", "Requests sent again", ["model"])
HEDGES = Counter("mlmesh_serving_hedges_total", "Second requests sent", ["model"])
HEDGES_WON = Counter("mlmesh_serving_hedges_won_total", "Second requests that answered first", ["model"])
BREAKER = Gauge("mlmesh_serving_breaker_state", "0: closed, 1: half-open, 2: open", ["model"])
BREAKER_OPENED = Counter("mlmesh_serving_breaker_opened_total", "Times a breaker opened", ["model"])

REASONS = ("queue", "model", "everywhere", "deadline")
"""Why a request is refused: what waits for the model, what is in flight for it, or in all; it would be late."""


def forget(model: str) -> None:
    """Removes what is known of a model that is gone."""
    for reason in REASONS:
        REFUSED.remove(model, reason)
    for metric in (LATE, RETRIES, HEDGES, HEDGES_WON, BREAKER, BREAKER_OPENED):
        metric.remove(model)
