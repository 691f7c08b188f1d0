"""The search space: parameters, their feasible values, and how a value is written for a trial."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.activation import Activation, combinations, inactive, walk

MAX_PARAMETERS = 200
MAX_LIST = 10_000
MAX_NAME = 200
MAX_WHOLE = 2**53
"""Beyond it, floating point numbers skip whole ones: bounds of int, and the number of steps."""

Value = float | int | str


class Kind(Enum):
    """Katib's parameter types."""

    DOUBLE = "double"
    INT = "int"
    DISCRETE = "discrete"
    CATEGORICAL = "categorical"


# A name of the module is found several times as fast as a member of the class, and trials have thousands of values.
_INT, _DISCRETE, _CATEGORICAL = Kind.INT, Kind.DISCRETE, Kind.CATEGORICAL


class Distribution(Enum):
    """How values are spread between min and max."""

    UNIFORM = "uniform"
    LOG_UNIFORM = "logUniform"
    NORMAL = "normal"
    LOG_NORMAL = "logNormal"

    @property
    def is_log(self) -> bool:
        """Whether orders of magnitude, not differences, count."""
        return self is Distribution.LOG_UNIFORM or self is Distribution.LOG_NORMAL


@dataclass(frozen=True, slots=True)
class Parameter:
    """One dimension.

    Attributes:
        name: As in the experiment.
        kind: Its type.
        low: Smallest value (double, int).
        high: Largest value (double, int).
        step: Distance of feasible values (double, int); None: all between.
        choices: Feasible values (discrete: numbers, ascending; categorical: texts).
        distribution: How random values are spread (double, int).
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    choices: tuple[Value, ...] = ()
    distribution: Distribution = Distribution.UNIFORM

    @property
    def is_list(self) -> bool:
        """Whether the values are listed, not a range."""
        return self.kind is _DISCRETE or self.kind is _CATEGORICAL

    def count(self) -> int | None:
        """Gives the number of feasible values; None: too many to tell apart."""
        if self.is_list:
            return len(self.choices)
        if self.kind is Kind.INT:  # in whole numbers: the difference may be one that floating point numbers skip
            return (int(self.high) - int(self.low)) // int(self.step or 1) + 1
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def at(self, index: int) -> Value:
        """Gives the feasible value of an index below `count()`."""
        if self.is_list:
            return self.choices[index]
        step = self.step or 1.0
        if self.kind is Kind.INT:
            return int(self.low) + index * int(step)
        # Rounded to what the step says, so that 0.1 + 2 * 0.1 is 0.3.
        digits = max(0, 12 - math.floor(math.log10(max(abs(self.high), abs(self.low), step))))
        return min(max(round(self.low + index * step, digits), self.low), self.high)

    def default(self) -> Value:
        """Gives the value that stands for the parameter where it is not active: the first choice, or the middle."""
        if self.kind is _CATEGORICAL:
            return self.choices[0]
        count = self.count()
        if count is not None and (self.is_list or not self.distribution.is_log):
            return self.at((count - 1) // 2)
        if self.distribution.is_log:
            middle = math.exp((math.log(self.low) + math.log(self.high)) / 2)
        else:
            middle = self.low / 2 + self.high / 2
        middle = min(max(middle, self.low), self.high)
        if count is not None:
            return self.at(min(round((middle - self.low) / (self.step or 1.0)), count - 1))
        return middle

    def format(self, value: Value) -> str:
        """Writes a value as the trial gets it."""
        if self.kind is Kind.INT:
            return str(int(value))
        if self.kind is Kind.DISCRETE:
            number = float(value)
            return str(int(number)) if number.is_integer() else str(number)
        return str(float(value)) if self.kind is Kind.DOUBLE else str(value)

    def parse(self, text: str) -> Value | None:
        """Reads a value back; None if it is none of this parameter."""
        kind = self.kind
        if kind is _CATEGORICAL:
            return text if text in self.choices else None
        try:
            number = float(text)
        except ValueError:
            return None
        if kind is _DISCRETE:
            return number if number in self.choices else None
        if not self.low <= number <= self.high:  # nor is what is no number, or infinite
            return None
        return int(number) if kind is _INT else number


def make_parameter(
    name: str,
    kind: str,
    *,
    low: str,
    high: str,
    step: str,
    values: Sequence[str],
    distribution: str,
    field: str,
) -> Parameter:
    """Checks what a client wrote and makes a parameter of it.

    Args:
        name: Of the parameter.
        kind: double, int, discrete or categorical.
        low: Text of `min`.
        high: Text of `max`.
        step: Text of `step`; empty: none.
        values: Texts of `list`.
        distribution: uniform, logUniform, normal, logNormal; empty: uniform.
        field: Path of the parameter, for errors.

    Raises:
        InvalidArgument: Something is missing or contradicts itself.
    """
    if not 0 < len(name) <= MAX_NAME:
        raise InvalidArgument(f"must have 1 to {MAX_NAME} characters", field=f"{field}.name")
    space = f"{field}.feasibleSpace"
    try:
        of = Kind(kind)
    except ValueError:
        raise InvalidArgument("must be double, int, discrete or categorical", field=f"{field}.parameterType") from None
    try:
        spread = Distribution(distribution or "uniform")
    except ValueError:
        allowed = ", ".join(d.value for d in Distribution)
        raise InvalidArgument(f"must be one of {allowed}", field=f"{space}.distribution") from None
    if of in {Kind.DISCRETE, Kind.CATEGORICAL}:
        return _listed(name, of, values, space, has_range=bool(low or high or step))
    if values:
        raise InvalidArgument(f"must be empty for {kind}; give min and max", field=f"{space}.list")
    smallest, largest = _number(low, of, f"{space}.min"), _number(high, of, f"{space}.max")
    if smallest > largest:
        raise InvalidArgument(f"must not be above max ({high}), got {low}", field=f"{space}.min")
    if of is Kind.INT and max(abs(smallest), abs(largest)) > MAX_WHOLE:
        raise InvalidArgument(f"must be -{MAX_WHOLE} to {MAX_WHOLE} for int", field=space)
    if not math.isfinite(largest - smallest):
        raise InvalidArgument("min and max are too far apart", field=space)
    width = _step(step, of, f"{space}.step") if step else None
    if width is not None and (width <= 0 or (largest - smallest) / width > MAX_WHOLE):
        raise InvalidArgument(f"must be above 0, and at most {MAX_WHOLE} steps from min to max", field=f"{space}.step")
    if spread.is_log and smallest <= 0:
        raise InvalidArgument(f"must be above 0 for {spread.value}", field=f"{space}.min")
    return Parameter(name, of, smallest, largest, width, (), spread)


def _step(text: str, kind: Kind, field: str) -> float | None:
    """Reads a step; of whole numbers one below 1 leaves none out, as in Katib."""
    if kind is Kind.INT and 0 < _number(text, Kind.DOUBLE, field) < 1:
        return None
    return _number(text, kind, field)


def _listed(name: str, kind: Kind, values: Sequence[str], space: str, *, has_range: bool) -> Parameter:
    if has_range:
        raise InvalidArgument(f"must have no min, max or step for {kind.value}", field=space)
    if not values or len(values) > MAX_LIST:
        raise InvalidArgument(f"must hold 1 to {MAX_LIST} values", field=f"{space}.list")
    if any("\0" in value for value in values):
        raise InvalidArgument("must not hold NUL characters: no process can be given one", field=f"{space}.list")
    if len(set(values)) != len(values):
        raise InvalidArgument("must hold each value once", field=f"{space}.list")
    if kind is Kind.CATEGORICAL:
        return Parameter(name, kind, choices=tuple(values))
    numbers = sorted({_number(value, Kind.DOUBLE, f"{space}.list") for value in values})
    return Parameter(name, kind, choices=tuple(numbers))


def _number(text: str, kind: Kind, field: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (kind is Kind.INT and not number.is_integer()):
        wanted = "a whole number" if kind is Kind.INT else "a number"
        raise InvalidArgument(f"must be {wanted}, got {text!r}", field=field)
    return number


@dataclass(frozen=True, slots=True)
class Space:
    """All parameters of an experiment.

    A point has a value for every parameter, so that algorithms see one cube; of a parameter that is not active it is
    `Parameter.default()`, which makes points that differ in nothing active one and the same.

    Attributes:
        parameters: In their order in points.
        activations: When parameters are active, parents before children; empty: all are, always.
    """

    parameters: tuple[Parameter, ...]
    activations: tuple[Activation, ...] = ()

    def whole(self) -> "Space":
        """Gives the space in which all parameters are active, of which this one is a part."""
        return Space(self.parameters) if self.activations else self

    def canonical(self, point: tuple[Value, ...]) -> tuple[Value, ...]:
        """Gives a point with what is not active at its default."""
        if not self.activations:
            return point
        values = list(point)
        for child in self.inactive(point):
            values[child] = self.parameters[child].default()
        return tuple(values)

    def inactive(self, point: Sequence[Value]) -> set[int]:
        """Gives the places of the parameters that are not active at a point."""
        return inactive(self.activations, point)

    def size(self) -> int | None:
        """Gives the number of points; None: too many to tell apart."""
        if self.activations:
            return combinations(self.parameters, self.activations)
        size = 1
        for parameter in self.parameters:
            count = parameter.count()
            if count is None:
                return None
            size *= count
        return size

    def points(self) -> Iterator[tuple[Value, ...]]:
        """Walks all points of a space that has a size, the last parameter fastest."""
        if self.activations:
            yield from walk(self.parameters, self.activations)
            return
        counts = [parameter.count() or 0 for parameter in self.parameters]
        for number in itertools.count():  # not itertools.product: it would hold all values of each parameter
            rest, indices = number, []
            for size in reversed(counts):
                rest, index = divmod(rest, size)
                indices.append(index)
            if rest:
                return
            yield tuple(p.at(i) for p, i in zip(self.parameters, reversed(indices), strict=True))

    def key(self, point: Sequence[Value]) -> tuple[str, ...]:
        """Gives what tells points apart: their values as a trial gets them."""
        if self.activations:
            point = self.canonical(tuple(point))
        return tuple(p.format(v) for p, v in zip(self.parameters, point, strict=True))

    def assignments(self, point: Sequence[Value]) -> dict[str, str]:
        """Gives what a trial gets: parameter → value, of those that are active."""
        missing = self.inactive(point) if self.activations else ()
        pairs = zip(self.parameters, point, strict=True)
        return {p.name: p.format(v) for index, (p, v) in enumerate(pairs) if index not in missing}

    def with_blanks(self, assignments: Mapping[str, str]) -> Mapping[str, str]:
        """Gives the assignments of a trial with an empty text for each parameter that is not active: for templates."""
        if not self.activations:
            return assignments
        return {**{self.parameters[rule.child].name: "" for rule in self.activations}, **assignments}

    def parse(self, assignments: Mapping[str, str]) -> tuple[Value, ...] | None:
        """Reads a point of a trial's assignments, in which what is not active may be missing.

        Returns:
            The point; None if it is none of this space (it was edited since).
        """
        if self.activations:
            return self._parse_some(assignments)
        point = []
        for parameter in self.parameters:
            value = parameter.parse(assignments.get(parameter.name, ""))
            if value is None:
                return None
            point.append(value)
        return tuple(point)

    def _parse_some(self, assignments: Mapping[str, str]) -> tuple[Value, ...] | None:
        read = [parameter.parse(assignments.get(parameter.name, "")) for parameter in self.parameters]
        point = tuple(
            parameter.default() if value is None else value
            for parameter, value in zip(self.parameters, read, strict=True)
        )
        inactive = self.inactive(point)
        if any(value is None and index not in inactive for index, value in enumerate(read)):
            return None
        return self.canonical(point)


def make_space(parameters: Sequence[Parameter], field: str, activations: Sequence[Activation] = ()) -> Space:
    """Makes a space.

    Args:
        parameters: In their order.
        field: Their path, for errors.
        activations: When they are active; see `extensions.parse_activations`.

    Raises:
        InvalidArgument: No parameter, too many, or a name twice.
    """
    if not 1 <= len(parameters) <= MAX_PARAMETERS:
        raise InvalidArgument(f"must hold 1 to {MAX_PARAMETERS} parameters, got {len(parameters)}", field=field)
    names = [parameter.name for parameter in parameters]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidArgument(f"{name!r} is there twice", field=f"{field}[{index}].name")
    return Space(tuple(parameters), tuple(activations))
