"""Experiments and trials: their states, and when an experiment ends. Conditions and reasons are Katib's."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from mlmesh_katib.algorithms import ALGORITHMS
from mlmesh_katib.manifest import ExperimentSpec
from mlmesh_katib.objective import MetricSummary
from mlmesh_katib.pareto import pareto_front


class TrialState(Enum):
    """Of a trial; the values are Katib's condition types."""

    CREATED = "Created"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    KILLED = "Killed"
    EARLY_STOPPED = "EarlyStopped"

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes."""
        return self not in {TrialState.CREATED, TrialState.RUNNING}


REPORTED = frozenset({TrialState.SUCCEEDED, TrialState.EARLY_STOPPED})
"""The states in which what a trial reported counts."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What holds or held.

    Attributes:
        type: Katib's type.
        holds: Whether it holds now.
        reason: One word.
        message: For people.
        at_ms: When it last changed, milliseconds since the epoch.
    """

    type: str
    holds: bool
    reason: str
    message: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One choice of parameters and what came of it.

    Attributes:
        number: From 1, in the order they were made.
        name: `<experiment>-<number>`, or what the algorithm called it.
        assignments: Parameter → value, as the trial gets it.
        observation: What it reported.
        attempts: How often it was started.
        reference: Finds its job again (`Job.reference`); None: there is none.
        labels: What the algorithm gave it.
        ended_order: Its place among the trials of the experiment that have ended, from 1; None: it has not.
        started_ms, completed_ms: Milliseconds since the epoch.
        model_uri: Where the model is that it made; empty: it made none.
    """

    number: int
    name: str
    assignments: Mapping[str, str]
    conditions: tuple[Condition, ...]
    state: TrialState = TrialState.CREATED
    observation: tuple[MetricSummary, ...] = ()
    attempts: int = 0
    reference: Mapping[str, Any] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ended_order: int | None = None
    started_ms: int | None = None
    completed_ms: int | None = None
    model_uri: str = ""

    def enter(self, state: TrialState, message: str) -> "Trial":
        """Gives the trial in a new state, its conditions changed as Katib does."""
        conditions = conditions_after(self.conditions, state.value, f"Trial{state.value}", message)
        return replace(self, state=state, conditions=conditions)


@dataclass(frozen=True, slots=True)
class EarlierTrial:
    """A trial of another experiment, as the metadata service knows it.

    Attributes:
        name: NAMESPACE/EXPERIMENT/TRIAL.
        assignments: Parameter → value.
        metrics: Metric → the value that was reported last.
    """

    name: str
    assignments: Mapping[str, str]
    metrics: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as it is kept.

    Attributes:
        active: Whether there is work left.
        created_ms, completed_ms: Milliseconds since the epoch.
        settings: The algorithm's settings that its answers changed.
        paused: No more trials are started.
    """

    id: int
    namespace: str
    name: str
    manifest: Mapping[str, Any]
    conditions: tuple[Condition, ...]
    active: bool
    created_ms: int
    completed_ms: int | None
    settings: Mapping[str, str] = field(default_factory=dict)
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an experiment ended."""

    succeeded: bool
    reason: str
    message: str


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def conditions_after(conditions: Sequence[Condition], kind: str, reason: str, message: str) -> tuple[Condition, ...]:
    """Adds a condition that holds; `Running` stops holding when a later one does."""
    at = now_ms()
    kept = [
        replace(c, holds=False, at_ms=at) if c.type == "Running" and c.holds and kind != "Running" else c
        for c in conditions
        if c.type != kind
    ]
    return (*kept, Condition(kind, True, reason, message, at))


def best_trial(spec: ExperimentSpec, trials: Sequence[Trial]) -> Trial | None:
    """Finds the trial with the best (first) objective, of those that keep the constraints; the first of equal ones.

    With an algorithm whose trials report texts, which is none better than another: the first that succeeded.
    """
    best: tuple[float, Trial] | None = None
    for trial in trials:
        value = spec.objective.value(trial.observation) if trial.state in REPORTED else None
        if value is None or spec.objective.violation(trial.observation):
            continue
        if best is None or spec.objective.loss(value) < best[0]:
            best = (spec.objective.loss(value), trial)
    if best is None and ALGORITHMS[spec.algorithm].takes_texts:
        return next((trial for trial in trials if trial.state is TrialState.SUCCEEDED), None)
    return best[1] if best else None


def optimal_trials(spec: ExperimentSpec, trials: Sequence[Trial]) -> list[Trial]:
    """Finds the trials that no other one beats in all objectives, and that keep the constraints."""
    reported = [
        (trial, losses)
        for trial in trials
        if trial.state in REPORTED
        and (losses := spec.objective.losses(trial.observation)) is not None
        and not spec.objective.violation(trial.observation)
    ]
    return [reported[place][0] for place in pareto_front([losses for _, losses in reported])]


def decide(spec: ExperimentSpec, trials: Sequence[Trial], *, exhausted: bool) -> Verdict | None:
    """Tells whether an experiment is over, as Katib's controller does.

    Args:
        spec: What was asked for.
        trials: All trials.
        exhausted: Whether the algorithm has nothing more to suggest.
    """
    best = best_trial(spec, trials)
    if any(trial.state in REPORTED and spec.objective.is_reached(trial.observation) for trial in trials):
        return Verdict(True, "ExperimentGoalReached", "Experiment has succeeded because Objective goal has reached")
    failed = sum(trial.state in {TrialState.FAILED, TrialState.METRICS_UNAVAILABLE} for trial in trials)
    if spec.max_failed is not None and failed > spec.max_failed:
        return Verdict(
            False,
            "ExperimentMaxFailedTrialsReached",
            f"{failed} trials failed; maxFailedTrialCount is {spec.max_failed}",
        )
    completed = sum(trial.state.is_final for trial in trials)
    if completed >= spec.max_trials:
        return _over(
            spec, best, "ExperimentMaxTrialsReached", "Experiment has succeeded because max trial count has reached"
        )
    if exhausted and completed == len(trials):
        text = "Experiment has succeeded because suggestion service has reached the end: the search space is exhausted"
        return _over(spec, best, "ExperimentSuggestionEndReached", text)
    return None


def _over(spec: ExperimentSpec, best: Trial | None, reason: str, message: str) -> Verdict:
    if best is None:
        kept = " and kept the constraints" if spec.objective.constraints else ""
        return Verdict(False, "ExperimentFailed", f"no trial reported the objective{kept}")
    return Verdict(True, reason, message)
