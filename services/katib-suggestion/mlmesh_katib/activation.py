"""Conditional spaces: parameters that exist only where another one has a certain value."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmesh_katib.space import Parameter, Value


@dataclass(frozen=True, slots=True)
class Activation:
    """When a parameter is active: where its parent is, and has one of some values.

    Attributes:
        child: Place of the parameter in the space.
        parent: Place of the other.
        values: Of the parent, as in points.
    """

    child: int
    parent: int
    values: frozenset[float | int | str]


def in_order(activations: Sequence[Activation]) -> tuple[Activation, ...] | None:
    """Sorts them, parents before children; None where parameters hang on each other in a circle."""
    left, sorted_ = list(activations), []
    while left:
        waiting = {rule.child for rule in left}
        free = [rule for rule in left if rule.parent not in waiting]
        if not free:
            return None
        sorted_ += free
        left = [rule for rule in left if rule.parent in waiting]
    return tuple(sorted_)


def inactive(activations: Sequence[Activation], point: "Sequence[Value]") -> set[int]:
    """Gives the places of the parameters that are not active at a point; rules of parents come first."""
    found: set[int] = set()
    for rule in activations:
        if rule.parent in found or point[rule.parent] not in rule.values:
            found.add(rule.child)
    return found


def combinations(parameters: "Sequence[Parameter]", activations: Sequence[Activation]) -> int | None:
    """Counts the points that differ in something active; None: too many to tell apart."""
    children = {rule.child for rule in activations}
    return _below(parameters, activations, [place for place in range(len(parameters)) if place not in children])


def _below(parameters: "Sequence[Parameter]", activations: Sequence[Activation], places: Sequence[int]) -> int | None:
    """Counts the combinations of some parameters and of what hangs on them."""
    size = 1
    for place in places:
        total = parameters[place].count()
        if total is None:
            return None
        rules = [rule for rule in activations if rule.parent == place]
        for value in set().union(*(rule.values for rule in rules)):
            below = _below(parameters, activations, [rule.child for rule in rules if value in rule.values])
            if below is None:
                return None
            total += below - 1
        size *= total
    return size


def walk(parameters: "Sequence[Parameter]", activations: Sequence[Activation]) -> "Iterator[tuple[Value, ...]]":
    """Walks all points that differ in something active, the last parameter fastest; parents before their children."""
    parents = {rule.child: rule.parent for rule in activations}
    order: dict[int, None] = {}
    for place in range(len(parameters)):
        chain = [place]
        while chain[-1] in parents:
            chain.append(parents[chain[-1]])
        order.update(dict.fromkeys(reversed(chain)))
    values = [parameter.default() for parameter in parameters]

    def step(places: Sequence[int]) -> "Iterator[tuple[Value, ...]]":
        if not places:
            yield tuple(values)
            return
        place, rest = places[0], places[1:]
        if place in inactive(activations, values):
            yield from step(rest)
            return
        for index in range(parameters[place].count() or 0):
            values[place] = parameters[place].at(index)
            yield from step(rest)
        values[place] = parameters[place].default()

    return step(list(order))
