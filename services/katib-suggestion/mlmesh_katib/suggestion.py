"""Asks an algorithm for the next trials."""

from collections.abc import Mapping, Sequence

from mlmesh_katib.algorithms import ALGORITHMS, Answer, Observed, Question, ask
from mlmesh_katib.experiment import REPORTED, EarlierTrial, Trial, TrialState
from mlmesh_katib.manifest import ExperimentSpec
from mlmesh_katib.objective import MetricSummary


def next_trials(
    spec: ExperimentSpec,
    trials: Sequence[Trial],
    count: int,
    settings: Mapping[str, str] | None = None,
    reports: Mapping[str, tuple[tuple[float, float], ...]] | None = None,
    prior: Sequence[Observed] = (),
) -> Answer:
    """Gives the next trials; fewer than asked for at the end, or where others have to end first. Blocks.

    Args:
        spec: What was asked for.
        trials: All trials so far, in their order.
        count: How many are wanted.
        settings: The algorithm's settings that earlier answers changed.
        reports: Trial → what it has reported of the objective: (step, loss).
        prior: Trials of earlier experiments (`earlier_trials`).
    """
    algorithm, objective = ALGORITHMS[spec.algorithm], spec.objective
    space = algorithm.space_of(spec.space, spec.settings)
    observed = []
    for trial in trials:
        point = space.parse(trial.assignments)
        if point is None:
            continue
        losses = objective.losses(trial.observation) if trial.state in REPORTED else None
        observed.append(
            Observed(
                point,
                None if losses is None else losses[0],
                running=not trial.state.is_final,
                losses=losses if losses is not None and objective.others else (),
                violation=0.0 if losses is None else objective.violation(trial.observation),
                reports=(reports or {}).get(trial.name, ()),
                stopped=trial.state is TrialState.EARLY_STOPPED,
                name=trial.name,
                labels=trial.labels,
                assignments=trial.assignments,
            )
        )
    question = Question(
        space,
        {**spec.settings, **(settings or {})},
        observed,
        made=len(trials),
        max_trial_count=spec.max_trials,
        parallel=spec.parallel,
        prior=prior,
        nas=spec.nas,
        experiment=spec.name,
        objectives=len(objective.targets),
    )
    return ask(algorithm, question, count)


def earlier_trials(spec: ExperimentSpec, trials: Sequence[EarlierTrial]) -> list[Observed]:
    """Gives trials of earlier experiments as an algorithm sees them: those that are in the space and have a result."""
    found = []
    for trial in trials:
        point = spec.space.parse(trial.assignments) if spec.space.parameters else None
        observation = [MetricSummary(name, value, value, value) for name, value in trial.metrics.items()]
        losses = spec.objective.losses(observation)
        if point is not None and losses is not None:
            found.append(
                Observed(
                    point,
                    losses[0],
                    losses=losses if spec.objective.others else (),
                    violation=spec.objective.violation(observation),
                    name=trial.name,
                    assignments=trial.assignments,
                )
            )
    return found
