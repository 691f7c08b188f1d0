"""The Pareto front: trials that no other one beats in all objectives."""

import itertools

from mlmesh_katib.report.chart import BOTTOM, LEFT, RIGHT, TOP, WIDTH, dot, frame, legend, line, svg
from mlmesh_katib.report.content import Content, Outcome, evenly
from mlmesh_katib.report.markup import Markup, element, join, number
from mlmesh_katib.report.scale import fit

MAX_POINTS = 1000
MAX_PAIRS = 6
_HEIGHT = 320.0


def fronts(content: Content) -> Markup:
    """Draws two objectives against each other, for each pair of them.

    Args:
        content: With several objectives and at least one outcome.
    """
    targets = content.spec.objective.targets
    pairs = list(itertools.combinations(range(len(targets)), 2))
    drawn = [_pair(content, first, second) for first, second in pairs[:MAX_PAIRS]]
    entries = [("top", f"on the front ({len(content.front)})"), ("done", "beaten by another one")]
    if any(not outcome.kept for outcome in content.outcomes):
        entries.append(("broken", "breaks a constraint"))
    wanted = ", ".join(f"{'more' if target.maximize else 'less'} {target.metric}" for target in targets)
    notes = [f"Wanted: {wanted}."]
    if len(pairs) > MAX_PAIRS:
        notes.append(f"{MAX_PAIRS} of {len(pairs)} pairs of objectives are drawn.")
    if len(content.outcomes) - len(content.front) > MAX_POINTS:
        notes.append(f"Of the trials that are not on the front {MAX_POINTS} are drawn.")
    return join(*drawn, legend(*entries), element("p", " ".join(notes), class_="note"))


def _pair(content: Content, first: int, second: int) -> Markup:
    one, other = content.spec.objective.targets[first], content.spec.objective.targets[second]
    x = fit([item.values[first] for item in content.outcomes], LEFT, WIDTH - RIGHT, maximize=one.maximize)
    y = fit([item.values[second] for item in content.outcomes], _HEIGHT - BOTTOM, TOP, maximize=other.maximize)
    on = [outcome for outcome in content.outcomes if outcome.trial.number in content.front]
    rest = [outcome for outcome in content.outcomes if outcome.trial.number not in content.front]

    def mark(outcome: Outcome, kind: str) -> Markup:
        values = ", ".join(number(value) for value in outcome.values)
        at = (x(outcome.values[first]), y(outcome.values[second]))
        radius = 4.5 if kind == "top" else 3.0
        return dot(*at, kind, outcome.trial.number, f"{outcome.trial.name}: {values}", radius)

    marks = [mark(outcome, "done" if outcome.kept else "broken") for outcome in evenly(rest, MAX_POINTS)]
    on.sort(key=lambda outcome: (outcome.losses[first], outcome.losses[second]))
    shown = evenly(on, MAX_POINTS)
    if len(content.spec.objective.targets) == 2:
        points: list[tuple[float, float]] = []
        for outcome in shown:
            at = (x(outcome.values[first]), y(outcome.values[second]))
            points += [(at[0], points[-1][1]), at] if points else [at]
        if len(points) > 1:
            marks.append(line(points, "front"))
    marks += [mark(outcome, "top") for outcome in shown]
    title = f"{one.metric} and {other.metric}"
    return svg(_HEIGHT, title, frame(x, y, one.metric, other.metric), *marks)
