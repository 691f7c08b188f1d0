"""How algorithms are asked, so that they need not know of constraints and of conditional parameters."""

import math
from dataclasses import replace

from mlmesh_katib.algorithms.base import Algorithm, Answer, Observed, Question, Suggestion, generator
from mlmesh_katib.algorithms.random import draw_new

_LEAST = 0.1
"""How far behind the worst a trial is that violates a constraint by next to nothing, in widths of the losses."""
_ROUNDS = 3
"""Of asking for points instead of those that turned out to be known."""


def ask(algorithm: Algorithm, question: Question, count: int) -> Answer:
    """Asks an algorithm for the next trials.

    Args:
        algorithm: Whom.
        question: What is known; trials with their violations of constraints, points of a conditional space complete.
        count: How many are wanted.
    """
    if not algorithm.knows_constraints and any(trial.violation for trial in (*question.trials, *question.prior)):
        question = _penalised(question)
    if not question.space.activations or algorithm.walks_conditions:
        return algorithm.answer(question, count)
    return _of_conditional(algorithm, question, count)


def _penalised(question: Question) -> Question:
    """Puts trials that violate constraints behind all that keep them, by how much they do.

    The order is that of K. Deb, "An efficient constraint handling method for genetic algorithms" (2000). Their losses
    are beyond the worst by at most the distance from the best to the worst, so that a model of the loss stays smooth.
    """
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


def _of_conditional(algorithm: Algorithm, question: Question, count: int) -> Answer:
    """Asks about the whole cube, and takes of the answer what differs in something active.

    A point that is known already when what is not active is left out is told to the algorithm as a trial that failed,
    and another is asked for; after some rounds the rest is drawn at random.
    """
    space, whole = question.space, question.space.whole()
    tried = {trial.point for trial in question.trials}
    found: list[Suggestion] = []
    asked = replace(question, space=whole)
    wait = False
    for _ in range(_ROUNDS):
        answer = algorithm.answer(asked, count - len(found))
        told = []
        for suggestion in answer.suggestions:
            point = whole.parse(suggestion.assignments)
            if point is None:  # it searches no space
                return answer
            inner = space.canonical(point)
            if algorithm.may_repeat or inner not in tried:
                found.append(replace(suggestion, assignments=space.assignments(inner)))
                tried.add(inner)
                told.append(Observed(inner, None, running=True, name=suggestion.name, labels=suggestion.labels))
            if point != inner:
                told.append(Observed(point, None))
        asked = replace(
            asked,
            settings={**asked.settings, **answer.settings},
            trials=(*asked.trials, *told),
            made=asked.made + len(answer.suggestions),
        )
        wait = answer.wait
        if len(found) == count or not told:
            break
    settings = {name: value for name, value in asked.settings.items() if question.settings.get(name) != value}
    if len(found) < count and not wait:
        random = generator(question.settings, question.made)
        found += [Suggestion(space.assignments(p)) for p in draw_new(space, random, tried, count - len(found))]
    return Answer(found, settings, wait)
