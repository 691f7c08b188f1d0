"""Population based training, under Katib's name, settings and labels.

M. Jaderberg et al., "Population Based Training of Neural Networks" (2017). The population is read from the labels of
the trials at each call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.base import (
    Algorithm,
    Answer,
    Observed,
    Question,
    Suggestion,
    generator,
    real_number,
    whole_number,
)
from mlmesh_katib.algorithms.random import draw_new, sample
from mlmesh_katib.space import Kind, Parameter, Value

GENERATION = "pbt.suggestion.katib.kubeflow.org/generation"
"""Label of a trial: its generation, from 0."""
PARENT = "pbt.suggestion.katib.kubeflow.org/parent"
"""Label of a trial: name of the trial whose checkpoint it goes on from."""

_REQUIRED = ("suggestion_trial_dir", "n_population", "truncation_threshold")
_KNOWN = (*_REQUIRED, "resample_probability", "random_state")
_SMALLEST_POPULATION = 5
_FACTORS = (0.8, 1.2)


class PopulationBasedTraining(Algorithm):
    """Goes on from the good, generation by generation, with other parameters each time.

    Of a generation, the worst `truncation_threshold` are replaced: their place takes one of the best as many, with its
    parameters and its checkpoint. The others go on from their own checkpoints, their parameters times 0.8 or 1.2, or
    drawn anew with `resample_probability`. A generation begins when `n_population` trials of the one before have
    succeeded; where more are wanted before that, the generation that runs gets them.
    """

    name = "pbt"
    ignores_prior = True
    may_repeat = True

    def validate(self, question: Question) -> None:
        """See Algorithm."""
        settings = question.settings
        for name in settings:
            if name not in _KNOWN:
                message = f"unknown setting {name} for algorithm {self.name}"
                raise InvalidArgument(message, field=f"algorithmSettings.{name}")
        missing = [name for name in _REQUIRED if name not in settings]
        if missing:
            raise InvalidArgument(f"Required params missing: {', '.join(missing)}", field="algorithmSettings")
        if whole_number(settings, "n_population", smallest=-(2**31), largest=100_000) < _SMALLEST_POPULATION:
            message = f"Param(n_population) should be >= {_SMALLEST_POPULATION}"
            raise InvalidArgument(message, field="algorithmSettings.n_population")
        if not 0 <= real_number(settings, "truncation_threshold") <= 1:
            message = "Param(truncation_threshold) should be between 0 and 1, inclusive"
            raise InvalidArgument(message, field="algorithmSettings.truncation_threshold")
        if "resample_probability" in settings and not 0 <= real_number(settings, "resample_probability") <= 1:
            raise InvalidArgument(
                "Param(resample_probability) should be null to perturb at 0.8 or 1.2, or be between 0 and 1, "
                "inclusive, to resample",
                field="algorithmSettings.resample_probability",
            )
        if "random_state" in settings:
            whole_number(settings, "random_state", smallest=0, largest=2**32 - 1)

    def answer(self, question: Question, count: int) -> Answer:
        """See Algorithm."""
        population = _Population.of(question)
        return Answer([population.next(generator(question.settings, question.made + n)) for n in range(count)])


@dataclass(slots=True)
class _Population:
    """What there is of the newest generation, and what it comes from.

    Attributes:
        question: What is asked.
        number: Of the generation, from 0.
        members: How many of it run or have succeeded.
        parents: Those of the generation before that count, the best first; none of the first generation.
        tried: All points so far.
    """

    question: Question
    number: int
    members: int
    parents: Sequence[Observed]
    tried: set[tuple[Value, ...]]

    @classmethod
    def of(cls, question: Question) -> "_Population":
        """Reads it from the trials."""
        size = int(question.settings["n_population"])
        generations: dict[int, list[Observed]] = {}
        for trial in question.trials:
            generations.setdefault(_generation(trial), []).append(trial)
        number = max(generations, default=0)
        succeeded = _ranked(generations.get(number, ()), size)
        tried = {trial.point for trial in question.trials}
        if len(succeeded) >= size:
            return cls(question, number + 1, 0, succeeded, tried)
        members = sum(trial.running or trial.loss is not None for trial in generations.get(number, ()))
        parents = _ranked(generations.get(number - 1, ()), size)
        return cls(question, number, members, parents, tried)

    def next(self, random: np.random.Generator) -> Suggestion:
        """Gives a member; with the same generator and trials, the same."""
        space = self.question.space
        parent = self._parent(random) if self.parents else None
        if parent is None:
            drawn = draw_new(space, random, self.tried, 1)
            point = drawn[0] if drawn else tuple(sample(parameter, random) for parameter in space.parameters)
        else:
            point = parent[1]
        self.members += 1
        labels = {GENERATION: str(self.number)}
        if parent is not None:
            labels[PARENT] = parent[0]
        names = [parameter.name for parameter in space.parameters]
        experiment = self.question.experiment
        name = f"{experiment}-{random.bytes(4).hex()}" if experiment else ""
        return Suggestion(dict(zip(names, space.key(point), strict=True)), name, labels)

    def _parent(self, random: np.random.Generator) -> tuple[str, tuple[Value, ...]]:
        """Chooses whose checkpoint the next member goes on from: (its name, the member's point)."""
        size = len(self.parents)
        replaced = int(size * float(self.question.settings["truncation_threshold"]))
        place = self.members % size
        if place >= size - replaced:
            best = self.parents[int(random.integers(max(1, min(replaced, size - replaced))))]
            return best.name, best.point
        chosen = self.parents[place]
        return chosen.name, self._explored(chosen.point, random)

    def _explored(self, point: tuple[Value, ...], random: np.random.Generator) -> tuple[Value, ...]:
        parameters = self.question.space.parameters
        probability = self.question.settings.get("resample_probability")
        if probability is None:
            return tuple(_perturbed(p, value, random) for p, value in zip(parameters, point, strict=True))
        return tuple(
            sample(parameter, random) if random.random() < float(probability) else value
            for parameter, value in zip(parameters, point, strict=True)
        )


def _ranked(trials: Sequence[Observed], size: int) -> list[Observed]:
    """Gives the trials that succeeded, the best first, at most `size` of them."""
    return sorted((t for t in trials if t.loss is not None), key=lambda t: float(t.loss or 0.0))[:size]


def _generation(trial: Observed) -> int:
    """Reads a trial's label; what carries none is of the first generation."""
    text = trial.labels.get(GENERATION, "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _perturbed(parameter: Parameter, value: Value, random: np.random.Generator) -> Value:
    """Gives the value times 0.8 or 1.2, and at least the next feasible one; of a list, a neighbour."""
    up = bool(random.integers(2))
    if parameter.is_list:
        index = parameter.choices.index(value) + (1 if up else -1)
        count = len(parameter.choices)
        if parameter.kind is Kind.CATEGORICAL:
            return parameter.choices[index % count]
        return parameter.choices[min(max(index, 0), count - 1)]
    number = float(value)
    moved = number * _FACTORS[up]
    if parameter.step is not None or parameter.kind is Kind.INT:
        step = parameter.step or 1.0
        steps = max(1, round(abs(moved - number) / step)) * (1 if moved > number else -1 if moved < number else 0)
        index = round((number - parameter.low) / step) + steps
        return parameter.at(min(max(index, 0), (parameter.count() or 1) - 1))
    return min(max(moved, parameter.low), parameter.high)
