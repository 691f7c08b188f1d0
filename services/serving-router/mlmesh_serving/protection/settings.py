"""What a model's annotations say of retries and hedges; nothing said: there are none."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlmesh_kit.errors import InvalidArgument

from mlmesh_serving.protection.hedge import HedgeSettings
from mlmesh_serving.protection.retry import RetrySettings

PREFIX = "serving.mlmesh.dev/"
RETRY_ATTEMPTS = PREFIX + "retry-attempts"
HEDGE_PERCENTILE = PREFIX + "hedge-percentile"
HEDGE_BUDGET = PREFIX + "hedge-budget-percentage"

_MOST_ATTEMPTS = 5
"""gRPC's bound of `maxAttempts`."""


@dataclass(frozen=True, slots=True)
class ProtectionSpec:
    """How a model's requests are sent.

    Attributes:
        retry: Send again what ended with UNAVAILABLE; None: not.
        hedge: Send a second request when the first takes unusually long; None: not.
    """

    retry: RetrySettings | None = None
    hedge: HedgeSettings | None = None


def parse_protection(annotations: Mapping[str, str], field: str = "metadata.annotations") -> ProtectionSpec:
    """Reads a model's annotations. Both ask for predictions that may be computed twice.

    Args:
        annotations: `serving.mlmesh.dev/retry-attempts` (2 to 5, the first one included),
            `serving.mlmesh.dev/hedge-percentile` (50 to 99.9), `serving.mlmesh.dev/hedge-budget-percentage` (of all
            requests; 0.1 to 100, by default 5). Others are not read.
        field: Where they are, for messages.

    Raises:
        InvalidArgument: A value is out of bounds; names the annotation.
    """
    retry = hedge = None
    if RETRY_ATTEMPTS in annotations:
        attempts = _number(annotations, RETRY_ATTEMPTS, field, 2, _MOST_ATTEMPTS)
        if attempts != int(attempts):
            raise InvalidArgument("must be a whole number", field=f"{field}[{RETRY_ATTEMPTS!r}]")
        retry = RetrySettings(max_attempts=int(attempts))
    if HEDGE_PERCENTILE in annotations:
        percentile = _number(annotations, HEDGE_PERCENTILE, field, 50, 99.9)
        share = _number(annotations, HEDGE_BUDGET, field, 0.1, 100) if HEDGE_BUDGET in annotations else 5.0
        hedge = HedgeSettings(percentile=percentile, budget=share / 100)
    elif HEDGE_BUDGET in annotations:
        raise InvalidArgument(f"has no effect without {HEDGE_PERCENTILE}", field=f"{field}[{HEDGE_BUDGET!r}]")
    return ProtectionSpec(retry, hedge)


def _number(annotations: Mapping[str, str], key: str, field: str, smallest: float, largest: float) -> float:
    try:
        value = float(annotations[key])
    except ValueError:
        value = float("nan")
    if not smallest <= value <= largest:  # also where it is no number
        text = f"must be a number from {smallest:g} to {largest:g}, got {annotations[key][:100]!r}"
        raise InvalidArgument(text, field=f"{field}[{key!r}]")
    return value
