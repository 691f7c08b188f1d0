"""Objectives: which metric, which way, and what a trial's reports make of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlmesh_katib.constraint import Constraint

STRATEGIES = ("min", "max", "latest")


@dataclass(frozen=True, slots=True)
class Target:
    """One more objective, besides the first.

    Attributes:
        metric: Name of the metric.
        maximize: Whether larger is better.
        goal: The value that is wanted; None: none.
    """

    metric: str
    maximize: bool
    goal: float | None = None

    def loss(self, value: float) -> float:
        """Turns the objective around where larger is better."""
        return -value if self.maximize else value

    def reached(self, value: float) -> bool:
        """Tells whether a value reaches the goal."""
        if self.goal is None:
            return False
        return value >= self.goal if self.maximize else value <= self.goal


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimised.

    Attributes:
        metric: Name of the metric.
        maximize: Whether larger is better.
        goal: The value at which to stop; None: none.
        additional: Names of metrics that are collected too.
        strategies: Metric → min, max or latest: which of a trial's reports counts.
        others: Further objectives; empty: there is one.
        constraints: Bounds on what trials report.
    """

    metric: str
    maximize: bool
    goal: float | None
    additional: tuple[str, ...]
    strategies: Mapping[str, str]
    others: tuple[Target, ...] = ()
    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that are collected."""
        others = [target.metric for target in self.others]
        bounded = [constraint.metric for constraint in self.constraints]
        return tuple(dict.fromkeys((self.metric, *self.additional, *others, *bounded)))

    @property
    def targets(self) -> tuple[Target, ...]:
        """All objectives, the first one first."""
        return (Target(self.metric, self.maximize, self.goal), *self.others)

    def value(self, observation: "Sequence[MetricSummary]") -> float | None:
        """Reads the objective from what a trial reported; None where it reported none that is a number."""
        return self._read(observation, self.metric)

    def losses(self, observation: "Sequence[MetricSummary]") -> tuple[float, ...] | None:
        """Reads all objectives, smaller is better; None where one is not reported.

        Give them as `Observed.losses` where there are `others`.
        """
        found = []
        for target in self.targets:
            value = self._read(observation, target.metric)
            if value is None:
                return None
            found.append(target.loss(value))
        return tuple(found)

    def missing(self, observation: "Sequence[MetricSummary]") -> list[str]:
        """Names the objectives that a trial has not reported as a number."""
        return [target.metric for target in self.targets if self._read(observation, target.metric) is None]

    def violation(self, observation: "Sequence[MetricSummary]") -> float:
        """Sums up how far beyond the constraints a trial is (`Constraint.excess`); 0: it keeps them.

        Of a metric that is no objective and has no strategy the latest report counts. Give it as `Observed.violation`.
        """
        if not self.constraints:
            return 0.0
        return sum(constraint.excess(self._read(observation, constraint.metric)) for constraint in self.constraints)

    def is_reached(self, observation: "Sequence[MetricSummary]") -> bool:
        """Tells whether a trial reaches all goals that there are and keeps the constraints."""
        goals = [target for target in self.targets if target.goal is not None]
        values = [(target, self._read(observation, target.metric)) for target in goals]
        reached = all(value is not None and target.reached(value) for target, value in values)
        return bool(goals) and reached and not self.violation(observation)

    def _read(self, observation: "Sequence[MetricSummary]", metric: str) -> float | None:
        default = next(("max" if t.maximize else "min" for t in self.targets if t.metric == metric), "latest")
        strategy = self.strategies.get(metric, default)
        for summary in observation:
            if summary.name == metric:
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
