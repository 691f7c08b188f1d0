"""What detectors find, in the shape that the field's detectors answer in (`is_drift`, `p_val`, `is_outlier`)."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class DriftResult:
    """Of one window.

    Attributes:
        is_drift: Whether the window differs.
        p_values: Of each feature; of all together one.
        distances: How far they are apart, as the test has it.
        threshold: p-value up to which a feature counts as changed.
        window: Instances that it was made of.
    """

    is_drift: bool
    p_values: list[float]
    distances: list[float]
    threshold: float
    window: int

    def data(self) -> dict[str, Any]:
        """Gives the result as JSON can hold it."""
        return {
            "is_drift": int(self.is_drift),
            "p_val": self.p_values,
            "distance": self.distances,
            "threshold": self.threshold,
            "window": self.window,
        }


@dataclass(frozen=True, slots=True)
class OutlierResult:
    """Of one request.

    Attributes:
        is_outlier: Of each instance.
        p_values: Of each instance; None: it could not be judged.
        scores: Of each instance; None as above.
        threshold: p-value up to which an instance is an outlier.
    """

    is_outlier: list[bool]
    p_values: list[float | None]
    scores: list[float | None]
    threshold: float

    def data(self) -> dict[str, Any]:
        """Gives the result as JSON can hold it."""
        return {
            "is_outlier": [int(found) for found in self.is_outlier],
            "instance_score": self.scores,
            "p_val": self.p_values,
            "threshold": self.threshold,
        }


@dataclass(slots=True)
class Status:
    """What is known of a detector.

    Attributes:
        state: COLLECTING, READY or FAILED.
        message: Why it failed, or what it could not read last.
        reference: Rows of the reference.
        instances: Seen.
        skipped: Of them, those that could not be judged (not finite).
        windows: Tested.
        drifts: Of them, those that differed.
        outliers: Of the instances.
        last: Last drift result, or last one with an outlier.
        last_seconds: When that was, since the epoch.
    """

    type: str
    state: str = "COLLECTING"
    message: str = ""
    reference: int = 0
    instances: int = 0
    skipped: int = 0
    windows: int = 0
    drifts: int = 0
    outliers: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    last_seconds: float = 0.0
