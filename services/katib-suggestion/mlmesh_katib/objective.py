"""Objectives: which metric, which way, and what a trial's reports make of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STRATEGIES = ("min", "max", "latest")


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimised.

    Attributes:
        metric: Name of the metric.
        maximize: Whether larger is better.
        goal: The value at which to stop; None: none.
        additional: Names of metrics that are collected too.
        strategies: Metric → min, max or latest: which of a trial's reports counts.
    """

    metric: str
    maximize: bool
    goal: float | None
    additional: tuple[str, ...]
    strategies: Mapping[str, str]

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that are collected."""
        return (self.metric, *self.additional)

    def value(self, observation: "Sequence[MetricSummary]") -> float | None:
        """Reads the objective from what a trial reported; None where it reported none that is a number."""
        strategy = self.strategies.get(self.metric, "max" if self.maximize else "min")
        for summary in observation:
            if summary.name == self.metric:
                number = _number(getattr(summary, strategy))
                return number if number is not None and math.isfinite(number) else None
        return None

    def number(self, text: str) -> float | None:
        """Reads a report; None where it is no finite number."""
        number = _number(text)
        return number if number is not None and math.isfinite(number) else None

    def loss(self, value: float) -> float:
        """Turns the objective around where larger is better."""
        return -value if self.maximize else value

    def reached(self, value: float) -> bool:
        """Tells whether a value reaches the goal."""
        if self.goal is None:
            return False
        return value >= self.goal if self.maximize else value <= self.goal


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """What a trial reported of one metric, as the texts it wrote."""

    name: str
    latest: str
    min: str
    max: str


def summarize(reports: Sequence[tuple[str, str]]) -> list[MetricSummary]:
    """Sums reports up; what is no finite number counts as the latest only where nothing else was reported."""
    names = list(dict.fromkeys(name for name, _ in reports))
    summaries = []
    for name in names:
        texts = [value for reported, value in reports if reported == name]
        numbers = [(number, text) for text in texts if (number := _number(text)) is not None and math.isfinite(number)]
        if numbers:
            low = min(numbers, key=lambda pair: pair[0])[1]
            high = max(numbers, key=lambda pair: pair[0])[1]
            summaries.append(MetricSummary(name, numbers[-1][1], low, high))
        else:
            summaries.append(MetricSummary(name, texts[-1], "unavailable", "unavailable"))
    return summaries


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
