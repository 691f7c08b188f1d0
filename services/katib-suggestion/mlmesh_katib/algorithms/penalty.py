"""Constraints, for algorithms that know nothing of them: losses that say what is violated."""

import math
from dataclasses import replace

from mlmesh_katib.algorithms.base import Observed, Question

_LEAST = 0.1
"""How far behind the worst a trial is that violates a constraint by next to nothing, in widths of the losses."""


def penalised(question: Question) -> Question:
    """Puts trials that violate constraints behind all that keep them, by how much they do.

    The order is that of K. Deb, "An efficient constraint handling method for genetic algorithms" (2000). Their losses
    are beyond the worst by at most the distance from the best to the worst, so that a model of the loss stays smooth.
    """
    if not any(trial.violation for trial in (*question.trials, *question.prior)):
        return question
    kept = [t.loss for t in (*question.prior, *question.trials) if t.loss is not None and not t.violation]
    best, worst = min(kept, default=0.0), max(kept, default=0.0)
    width = worst - best
    if not 0 < width < math.inf:
        width = 1.0

    def put_back(trial: Observed) -> Observed:
        if not trial.violation or trial.loss is None:
            return trial
        share = _LEAST + (1 - _LEAST) * trial.violation / (1 + trial.violation)
        return replace(trial, loss=worst + width * share)

    return replace(
        question,
        trials=[put_back(trial) for trial in question.trials],
        prior=[put_back(trial) for trial in question.prior],
    )
