"""What a report shows: an experiment, its trials, and how good each is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mlmesh_katib.experiment import REPORTED, Experiment, Trial, best_trial, optimal_trials
from mlmesh_katib.manifest import ExperimentSpec
from mlmesh_katib.report.importance import Importance

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial that has reported its objectives.

    Attributes:
        values: Of all objectives, as they were reported.
        losses: The same, smaller is better.
        violation: Of the constraints; 0: none.
    """

    trial: Trial
    values: tuple[float, ...]
    losses: tuple[float, ...]
    violation: float

    @property
    def kept(self) -> bool:
        """Whether it keeps the constraints."""
        return self.violation <= 0


@dataclass(frozen=True, slots=True)
class Curve:
    """What a trial has reported of the objective while it ran.

    Attributes:
        reports: How many reports there were.
        points: (which report, from 1; its value): not all, where there are many.
    """

    trial: Trial
    reports: int
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Content:
    """All that a report shows.

    Attributes:
        outcomes: In the order of the trials.
        best: The best trial; None: there is none.
        front: Numbers of the trials that no other one beats.
        curves: Of some trials; empty: none reported more than once.
        importances: Of each objective, where it could be told.
    """

    experiment: Experiment
    spec: ExperimentSpec
    trials: Sequence[Trial]
    outcomes: Sequence[Outcome]
    best: Trial | None
    front: frozenset[int]
    curves: Sequence[Curve]
    importances: Sequence[Importance]

    def levels(self, among: Sequence[Outcome], levels: int, objective: int = 0) -> Mapping[int, int]:
        """Sorts trials into levels by an objective, 0 is the best: number of the trial → level."""
        ordered = sorted(among, key=lambda outcome: outcome.losses[objective])
        return {outcome.trial.number: place * levels // len(ordered) for place, outcome in enumerate(ordered)}


def outcomes(spec: ExperimentSpec, trials: Sequence[Trial]) -> list[Outcome]:
    """Reads what trials have reported; those that have not reported all objectives are left out."""
    found = []
    for trial in trials:
        losses = spec.objective.losses(trial.observation) if trial.state in REPORTED else None
        if losses is not None:
            values = tuple(-x if t.maximize else x for t, x in zip(spec.objective.targets, losses, strict=True))
            found.append(Outcome(trial, values, losses, spec.objective.violation(trial.observation)))
    return found


def make_content(
    experiment: Experiment,
    spec: ExperimentSpec,
    trials: Sequence[Trial],
    curves: Sequence[Curve],
    importances: Sequence[Importance],
) -> Content:
    """Gathers what a report shows."""
    front = optimal_trials(spec, trials) if spec.objective.others else ()
    return Content(
        experiment=experiment,
        spec=spec,
        trials=trials,
        outcomes=outcomes(spec, trials),
        best=best_trial(spec, trials),
        front=frozenset(trial.number for trial in front),
        curves=curves,
        importances=importances,
    )


def evenly(items: Sequence[_T], most: int) -> list[_T]:
    """Thins a list out to at most so many, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    if most <= 1:
        return list(items[:most])
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]
