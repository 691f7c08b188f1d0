"""Asks an algorithm for the next trials."""

from collections.abc import Sequence

from mlmesh_katib.algorithms import ALGORITHMS, Observed, Question
from mlmesh_katib.experiment import Trial, TrialState
from mlmesh_katib.manifest import ExperimentSpec


def next_assignments(spec: ExperimentSpec, trials: Sequence[Trial], count: int) -> list[dict[str, str]]:
    """Gives the parameters of the next trials; fewer than asked for where the space is exhausted. Blocks.

    Args:
        spec: What was asked for.
        trials: All trials so far, in their order.
        count: How many are wanted.
    """
    observed = []
    for trial in trials:
        point = spec.space.parse(trial.assignments)
        if point is None:
            continue
        value = spec.objective.value(trial.observation) if trial.state is TrialState.SUCCEEDED else None
        loss = None if value is None else spec.objective.loss(value)
        observed.append(Observed(point, loss, running=not trial.state.is_final))
    question = Question(spec.space, spec.settings, observed, made=len(trials), max_trial_count=spec.max_trials)
    names = [parameter.name for parameter in spec.space.parameters]
    points = ALGORITHMS[spec.algorithm].suggest(question, count)
    return [dict(zip(names, spec.space.key(point), strict=True)) for point in points]
