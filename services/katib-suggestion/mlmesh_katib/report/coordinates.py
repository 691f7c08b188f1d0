"""Parallel coordinates: an axis for each parameter and objective, a line for each trial."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlmesh_katib.report.chart import LEVELS, WIDTH, legend, line, svg
from mlmesh_katib.report.content import Content, Outcome, evenly
from mlmesh_katib.report.markup import Markup, cut, element, join, number
from mlmesh_katib.report.scale import Scale, fit
from mlmesh_katib.space import Parameter

MAX_LINES = 400
MAX_AXES = 12
_MAX_LABELS = 9
_HEIGHT = 340.0
_TOP, _BOTTOM, _MISSING = 30.0, _HEIGHT - 40.0, _HEIGHT - 14.0
_SIDE = 54.0


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis.

    Attributes:
        name: What it shows.
        place: (outcome) → its height on the axis; None: it has no value.
        ticks: (height, label).
        is_log: Whether its scale is logarithmic.
    """

    name: str
    place: Callable[[Outcome], float | None]
    ticks: Sequence[tuple[float, str]]
    is_log: bool = False


def coordinates(content: Content) -> Markup:
    """Draws the trials that have reported their objectives.

    Args:
        content: With at least one outcome, and a parameter.
    """
    chosen = _parameters(content)
    shown = _shown(content)
    axes = [_parameter_axis(parameter, content) for parameter in chosen]
    axes += [_objective_axis(content, place) for place in range(len(content.spec.objective.targets))]
    gap = (WIDTH - 2 * _SIDE) / max(len(axes) - 1, 1)
    places = [_SIDE + gap * index for index in range(len(axes))]
    levels = content.levels(content.outcomes, LEVELS)
    best = content.best.number if content.best is not None else 0
    marks, missing = [], False
    for outcome in shown:
        heights = [axis.place(outcome) for axis in axes]
        missing |= None in heights
        points = [(x, _MISSING if y is None else y) for x, y in zip(places, heights, strict=True)]
        trial = outcome.trial
        kind = "best" if trial.number == best else f"q{levels[trial.number]}"
        title = f"{trial.name}: {', '.join(number(value) for value in outcome.values)}"
        marks.append(line(points, kind, trial.number, title))
    drawn = [_draw(axis, x, gap) for axis, x in zip(axes, places, strict=True)]
    if missing:
        drawn.append(element("text", "not active", class_="tick", x=4, y=_MISSING + 4))
    names = f"Parallel coordinates of {len(shown)} trials"
    entries = [("line best", "the best"), ("line q0", "among the best"), (f"line q{LEVELS - 1}", "among the worst")]
    return join(svg(_HEIGHT, names, *marks, *drawn), legend(*entries), *_notes(content, axes, shown))


def _parameters(content: Content) -> list[Parameter]:
    """Chooses the parameters that are drawn: the most important ones, in their own order."""
    parameters = content.spec.space.parameters
    most = MAX_AXES - len(content.spec.objective.targets)
    if len(parameters) <= most:
        return list(parameters)
    known = [name for found in content.importances[:1] for name, _ in found.shares]
    ordered = sorted(parameters, key=lambda one: known.index(one.name) if one.name in known else len(known))
    kept = {parameter.name for parameter in ordered[:most]}
    return [parameter for parameter in parameters if parameter.name in kept]


def _shown(content: Content) -> list[Outcome]:
    """Chooses the trials that are drawn, the best ones last, on top of the others."""
    ordered = sorted(content.outcomes, key=lambda outcome: outcome.losses[0], reverse=True)
    best = content.best.number if content.best is not None else 0
    half = MAX_LINES // 2
    chosen = ordered if len(ordered) <= MAX_LINES else [*evenly(ordered[:-half], half), *ordered[-half:]]
    chosen = [*chosen, *(one for one in ordered if one.trial.number == best)]
    return list({one.trial.number: one for one in chosen if one.trial.number != best}.values()) + [
        one for one in ordered if one.trial.number == best
    ]


def _parameter_axis(parameter: Parameter, content: Content) -> _Axis:
    def value(outcome: Outcome) -> float | int | str | None:
        text = outcome.trial.assignments.get(parameter.name)
        return None if text is None else parameter.parse(text)

    if parameter.is_list:
        last = max(len(parameter.choices) - 1, 1)
        heights = {
            choice: _BOTTOM + (_TOP - _BOTTOM) * (place / last if len(parameter.choices) > 1 else 0.5)
            for place, choice in enumerate(parameter.choices)
        }
        ticks = [(heights[choice], parameter.format(choice)) for choice in evenly(parameter.choices, _MAX_LABELS)]

        def listed(outcome: Outcome) -> float | None:
            found = value(outcome)
            return None if found is None else heights[found]

        return _Axis(parameter.name, listed, ticks)
    scale = Scale(parameter.low, parameter.high, _BOTTOM, _TOP, parameter.distribution.is_log)

    def placed(outcome: Outcome) -> float | None:
        found = value(outcome)
        return None if found is None else scale(float(found))

    return _Axis(parameter.name, placed, _ticks(scale), scale.log)


def _objective_axis(content: Content, objective: int) -> _Axis:
    target = content.spec.objective.targets[objective]
    seen = [outcome.values[objective] for outcome in content.outcomes]
    scale = fit(seen, _BOTTOM, _TOP, maximize=target.maximize)
    return _Axis(target.metric, lambda outcome: scale(outcome.values[objective]), _ticks(scale), scale.log)


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    """Gives labels that do not lie on each other, the ends of the range among them."""
    found = {scale(value): number(value) for value in (scale.low, scale.high)}
    for value in scale.ticks(5):
        height = scale(value)
        if all(abs(height - other) > 16 for other in found):
            found[height] = number(value)
    return sorted(found.items())


def _draw(axis: _Axis, x: float, gap: float) -> Markup:
    letters = max(4, int(gap / 7.2))
    name = element("text", cut(axis.name, letters), element("title", axis.name), class_="name", x=x, y=16)
    drawn = [
        element("g", name, text_anchor="middle"),
        element("line", class_="axis", x1=x, x2=x, y1=_BOTTOM, y2=_TOP),
    ]
    for height, label in axis.ticks:
        drawn.append(element("line", class_="axis", x1=x - 3, x2=x + 3, y1=height, y2=height))
        said = element("title", label)
        drawn.append(
            element("text", cut(label, letters), said, class_="tick halo", x=x - 6, y=height + 4, text_anchor="end")
        )
    return join(*drawn)


def _notes(content: Content, axes: Sequence[_Axis], shown: Sequence[Outcome]) -> list[Markup]:
    notes = []
    logs = [axis.name for axis in axes if axis.is_log]
    if logs:
        notes.append(f"Logarithmic: {', '.join(cut(name, 40) for name in logs)}.")
    left = len(content.spec.space.parameters) + len(content.spec.objective.targets) - len(axes)
    if left:
        notes.append(
            f"{left} parameters are left out" + (", the least important ones." if content.importances else ".")
        )
    if len(shown) < len(content.outcomes):
        notes.append(
            f"{len(shown)} of {len(content.outcomes)} trials are drawn: the {MAX_LINES // 2} best, and others evenly."
        )
    return [element("p", " ".join(notes), class_="note")] if notes else []
