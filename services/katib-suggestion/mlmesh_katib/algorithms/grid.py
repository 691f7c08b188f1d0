"""Grid search: every point once, the last parameter fastest."""

import itertools

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.base import Algorithm, Question, check_settings
from mlmesh_katib.space import Kind, Parameter, Value

_SAME = 1e-9
"""Of a step: nearer than this to a point of the grid is that point."""


class GridSearch(Algorithm):
    """All combinations."""

    name = "grid"
    is_multi_objective = True
    reads_results = False
    ignores_prior = True
    walks_conditions = True

    def validate(self, question: Question) -> None:
        """See Algorithm; as Katib, refuses more trials than there are points. `random_state` changes nothing."""
        check_settings(question.settings, ("random_state",), self.name)
        for parameter in question.space.parameters:
            if parameter.kind is Kind.DOUBLE and parameter.step is None:
                raise InvalidArgument(
                    f"Param: {parameter.name} step is nil; for discrete search space, all parameters must include step",
                    field=f"parameters.{parameter.name}.feasibleSpace.step",
                )
        size = question.space.size() or 0
        if question.max_trial_count > size:
            raise InvalidArgument(
                f"Max Trial Count: {question.max_trial_count} > all possible search combinations: {size}",
                field="maxTrialCount",
            )

    def suggest(self, question: Question, count: int) -> list[tuple[Value, ...]]:
        """See Algorithm."""
        if question.space.activations:
            seen = {trial.point for trial in question.trials}
            return list(itertools.islice((point for point in question.space.points() if point not in seen), count))
        parameters = question.space.parameters
        sizes = [parameter.count() or 0 for parameter in parameters]
        size = question.space.size() or 0
        tried = _numbers(parameters, sizes, [trial.point for trial in question.trials])
        free = (number for number in range(size) if number not in tried)
        return [_point(parameters, sizes, number) for number in itertools.islice(free, count)]


def _numbers(parameters: tuple[Parameter, ...], sizes: list[int], points: list[tuple[Value, ...]]) -> set[int]:
    """Gives the places of points in the order of the walk; of those that are on the grid."""
    places: list[dict[Value, int | None]] = [{} for _ in parameters]  # most values come again and again
    numbers = set()
    for point in points:
        number = 0
        for parameter, size, place, value in zip(parameters, sizes, places, point, strict=True):
            if value not in place:
                place[value] = _index(parameter, size, value)
            index = place[value]
            if index is None:
                break
            number = number * size + index
        else:
            numbers.add(number)
    return numbers


def _index(parameter: Parameter, size: int, value: Value) -> int | None:
    """Gives the place of a value among the parameter's; None: it is between two of them."""
    if parameter.is_list:
        return parameter.choices.index(value)
    step = parameter.step or 1.0
    index = min(round((float(value) - parameter.low) / step), size - 1)
    distance = abs(float(value) - (parameter.low + index * step))
    return index if distance <= step * _SAME or parameter.at(index) == value else None


def _point(parameters: tuple[Parameter, ...], sizes: list[int], number: int) -> tuple[Value, ...]:
    values = []
    for parameter, size in zip(reversed(parameters), reversed(sizes), strict=True):
        number, index = divmod(number, size)
        values.append(parameter.at(index))
    return tuple(reversed(values))
