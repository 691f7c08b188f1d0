"""How algorithms are asked, so that they need not know of constraints and of conditional parameters."""

from collections.abc import Mapping
from dataclasses import replace

from mlmesh_katib.algorithms.base import Algorithm, Answer, Observed, Question, Suggestion, generator
from mlmesh_katib.algorithms.penalty import penalised
from mlmesh_katib.algorithms.random import draw_new

_ROUNDS = 5
"""Of asking for points instead of those that turned out to be known."""


def ask(algorithm: Algorithm, question: Question, count: int) -> Answer:
    """Asks an algorithm for the next trials.

    Args:
        algorithm: Whom.
        question: What is known; trials with their violations of constraints, points of a conditional space complete.
        count: How many are wanted.
    """
    if not algorithm.knows_constraints:
        question = penalised(question)
    if not question.space.activations or algorithm.walks_conditions:
        return algorithm.answer(question, count)
    return _of_conditional(algorithm, question, count)


def _of_conditional(algorithm: Algorithm, question: Question, count: int) -> Answer:
    """Asks about the whole cube, and takes of the answer what differs in something active.

    A point that is known already when what is not active is left out is told to the algorithm as a trial that failed,
    and another is asked for; after some rounds the rest is drawn at random.
    """
    space, whole = question.space, question.space.whole()
    tried = {trial.point for trial in question.trials}
    found: list[Suggestion] = []
    asked = replace(question, space=whole)
    for _ in range(_ROUNDS):
        missing = count - len(found)
        answer = algorithm.answer(asked, missing)
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
        if len(found) == count or len(answer.suggestions) < missing:  # enough, or it has no more
            return Answer(found, _changed(question.settings, asked.settings), answer.wait)
    random = generator(question.settings, question.made)
    found += [Suggestion(space.assignments(p)) for p in draw_new(space, random, tried, count - len(found))]
    return Answer(found, _changed(question.settings, asked.settings))


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in new.items() if old.get(name) != value}
