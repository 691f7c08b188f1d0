"""Asks an algorithm for the next trials."""

from collections.abc import Mapping, Sequence

from mlmesh_katib.algorithms import ALGORITHMS, Answer, Observed, Question, ask
from mlmesh_katib.experiment import REPORTED, Trial, TrialState
from mlmesh_katib.manifest import ExperimentSpec


def next_trials(
    spec: ExperimentSpec,
    trials: Sequence[Trial],
    count: int,
    settings: Mapping[str, str] | None = None,
    reports: Mapping[str, tuple[tuple[float, float], ...]] | None = None,
) -> Answer:
    """Gives the next trials; fewer than asked for at the end, or where others have to end first. Blocks.

    Args:
        spec: What was asked for.
        trials: All trials so far, in their order.
        count: How many are wanted.
        settings: The algorithm's settings that earlier answers changed.
        reports: Trial → what it has reported of the objective: (step, loss).
    """
    observed = []
    for trial in trials:
        point = spec.space.parse(trial.assignments) if spec.space.parameters else ()
        if point is None:
            continue
        value = spec.objective.value(trial.observation) if trial.state in REPORTED else None
        loss = None if value is None else spec.objective.loss(value)
        observed.append(
            Observed(
                point,
                loss,
                running=not trial.state.is_final,
                reports=(reports or {}).get(trial.name, ()),
                stopped=trial.state is TrialState.EARLY_STOPPED,
                name=trial.name,
                labels=trial.labels,
                assignments=trial.assignments,
            )
        )
    question = Question(
        spec.space,
        {**spec.settings, **(settings or {})},
        observed,
        made=len(trials),
        max_trial_count=spec.max_trials,
        parallel=spec.parallel,
        nas=spec.nas,
        experiment=spec.name,
    )
    return ask(ALGORITHMS[spec.algorithm], question, count)
