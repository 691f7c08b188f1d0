"""The rungs of successive halving: how much of a resource trials have used when they are compared.

K. Jamieson, A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms.base import real_number, whole_number

SETTINGS = ("min_resource", "r_min", "max_resource", "eta", "reduction_factor")
_ALIASES = {"min_resource": "r_min", "eta": "reduction_factor"}
_DEFAULT_ETA = 3
_LARGEST_ETA = 1000
_LARGEST_RESOURCE = 1e12


@dataclass(frozen=True, slots=True)
class Rungs:
    """The amounts of the resource at which trials are compared.

    Attributes:
        smallest: The first of them.
        largest: What a trial may use at most; None: no limit.
        eta: Each is so many times the one before, and the best 1/eta of the trials on it go on.
    """

    smallest: float
    largest: float | None
    eta: int

    def levels(self, most: float) -> list[float]:
        """Gives the amounts up to `most`, ascending."""
        found, level = [], self.smallest
        while level <= most and (self.largest is None or level <= self.largest):
            found.append(level)
            level *= self.eta
        return found

    def survivors(self, count: int) -> int:
        """Gives how many of the trials that reached a rung are the best 1/eta."""
        return count // self.eta


def read_rungs(settings: Mapping[str, str], smallest: float = 1.0, largest: float | None = None) -> Rungs:
    """Reads the settings `min_resource` (or `r_min`), `max_resource` and `eta` (or `reduction_factor`).

    Args:
        settings: Of the algorithm or the early stopping.
        smallest, largest: Where the settings name none.

    Raises:
        InvalidArgument: One is wrong.
    """
    for name, alias in _ALIASES.items():
        if name in settings and alias in settings:
            raise InvalidArgument(f"{name} and {alias} are the same; give one", field=f"algorithmSettings.{alias}")
    least = next((name for name in ("min_resource", "r_min") if name in settings), None)
    if least is not None:
        smallest = _amount(settings, least)
    if "max_resource" in settings:
        largest = _amount(settings, "max_resource")
    if smallest <= 0:
        raise InvalidArgument("min_resource is needed, above zero", field="algorithmSettings.min_resource")
    if largest is not None and smallest > largest:
        raise InvalidArgument(
            f"max_resource should be at least the smallest resource ({smallest:g}), got {largest:g}",
            field="algorithmSettings.max_resource",
        )
    factor = next((name for name in ("eta", "reduction_factor") if name in settings), None)
    eta = _DEFAULT_ETA if factor is None else whole_number(settings, factor, smallest=2, largest=_LARGEST_ETA)
    return Rungs(smallest, largest, eta)


def _amount(settings: Mapping[str, str], name: str) -> float:
    value = real_number(settings, name)
    if not 0 < value <= _LARGEST_RESOURCE:
        raise InvalidArgument(
            f"{name} should be great than zero, at most {_LARGEST_RESOURCE:g}", field=f"algorithmSettings.{name}"
        )
    return value


def arrival(steps: Sequence[float], level: float) -> int | None:
    """Gives the place of the first report with which a trial has used so much of the resource; None: it has not yet.

    Args:
        steps: What it had used at each of its reports.
        level: The rung.
    """
    return next((place for place, step in enumerate(steps) if step >= level), None)
