"""Which parameters matter: permutation importance of a random forest.

L. Breiman, "Random Forests", Machine Learning 45 (2001): how much worse the forest predicts when the values of one
parameter are shuffled. Fitted to the ranks of the objective, so that a few trials that diverged do not decide all.
Compared with the others in docs/decisions/0078.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mlmesh_katib.space import Kind, Parameter, Space

MIN_TRIALS = 10
MAX_TRIALS = 1000
MAX_CELLS = 20_000
"""Of trials times parameters: with more of the latter there are less of the former, to bound the time."""
_TREES = 100
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Importance:
    """How much the parameters matter for one objective.

    Attributes:
        metric: The objective.
        shares: (parameter, its share of the sum of all), the largest first.
        explained: R² of the forest on trials that a tree has not seen; 0 or less: it knows nothing.
        trials: How many it has seen.
    """

    metric: str
    shares: Sequence[tuple[str, float]]
    explained: float
    trials: int


def importance(
    space: Space, metric: str, assignments: Sequence[dict[str, str]], losses: Sequence[float]
) -> Importance | None:
    """Tells how much parameters matter. Takes up to a second; threads are left to others.

    Args:
        space: Of the experiment.
        metric: Name of the objective.
        assignments: Of each trial, (n).
        losses: Of each trial, (n).

    Returns:
        None where it cannot be told: too few trials, one parameter, or all are equally good.
    """
    varied = [place for place, parameter in enumerate(space.parameters) if parameter.count() != 1]
    points = [(space.parse(given), loss) for given, loss in zip(assignments, losses, strict=True)]
    known = [(point, loss) for point, loss in points if point is not None]
    known = known[-max(MIN_TRIALS, min(MAX_TRIALS, MAX_CELLS // max(len(varied), 1))) :]
    if len(known) < MIN_TRIALS or len(varied) < 2 or len({loss for _, loss in known}) < 2:
        return None
    import numpy as np
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    table = np.array([[_place(space.parameters[i], point[i]) for i in varied] for point, _ in known])
    ranks = rankdata([loss for _, loss in known])
    forest = RandomForestRegressor(_TREES, min_samples_leaf=2, oob_score=True, random_state=0, n_jobs=1)
    forest.fit(table, ranks)
    found = permutation_importance(forest, table, ranks, n_repeats=_REPEATS, random_state=0, n_jobs=1)
    gains = np.maximum(found.importances_mean, 0.0)
    if gains.sum() <= 0:
        return None
    shares = zip((space.parameters[i].name for i in varied), (gains / gains.sum()).tolist(), strict=True)
    ordered = sorted(shares, key=lambda pair: -pair[1])
    return Importance(metric, ordered, float(forest.oob_score_), len(known))


def _place(parameter: Parameter, value: float | int | str) -> float:
    """Gives a value as a number; trees only look at the order."""
    return float(parameter.choices.index(value)) if parameter.kind is Kind.CATEGORICAL else float(value)
