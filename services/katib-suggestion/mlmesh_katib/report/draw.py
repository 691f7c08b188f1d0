"""Draws the report of an experiment from what is kept of it."""

from collections.abc import Sequence

from mlmesh_katib.experiment import Experiment, Trial, best_trial
from mlmesh_katib.manifest import ExperimentSpec, parse_manifest
from mlmesh_katib.report.content import Curve, Outcome, evenly, make_content, outcomes
from mlmesh_katib.report.curves import MAX_CURVES, MAX_POINTS
from mlmesh_katib.report.importance import Importance, importance
from mlmesh_katib.report.page import page
from mlmesh_katib.store import KatibStore

MAX_REPORTS = 2000
"""Of a trial's reports, so many are read."""


def draw(store: KatibStore, experiment: Experiment, max_trials: int) -> str:
    """Gives the report as HTML. Takes up to some seconds: call it in a thread.

    Args:
        store: Holds trials and their reports.
        experiment: What is reported on.
        max_trials: As the service knows it.
    """
    spec = parse_manifest(experiment.manifest, max_trials)
    trials = store.trials(experiment.id)
    found = outcomes(spec, trials)
    content = make_content(experiment, spec, trials, _curves(store, experiment, spec, trials), importances(spec, found))
    return page(content)


def importances(spec: ExperimentSpec, found: Sequence[Outcome]) -> list[Importance]:
    """Tells which parameters matter for each objective, where that can be told."""
    assignments = [dict(outcome.trial.assignments) for outcome in found]
    told = [
        importance(spec.space, target.metric, assignments, [outcome.losses[place] for outcome in found])
        for place, target in enumerate(spec.objective.targets)
    ]
    return [one for one in told if one is not None]


def _curves(store: KatibStore, experiment: Experiment, spec: ExperimentSpec, trials: Sequence[Trial]) -> list[Curve]:
    """Reads the reports of some trials, the best one among them; none where no trial reported more than once."""
    curves = []
    best = best_trial(spec, trials)
    others = [trial for trial in trials if trial.attempts and trial is not best]
    chosen = evenly(others, MAX_CURVES - 1)
    for trial in [*chosen, best] if best is not None else chosen:
        reports = store.reports(experiment.namespace, trial.name, spec.objective.metric, limit=MAX_REPORTS)
        read = [(place, spec.objective.number(log.value)) for place, (_, log) in enumerate(reports, start=1)]
        numbers = [(place, value) for place, value in read if value is not None]
        if numbers:
            curves.append(Curve(trial, len(reports), evenly(numbers, MAX_POINTS)))
    return curves if any(len(curve.points) > 1 for curve in curves) else []
