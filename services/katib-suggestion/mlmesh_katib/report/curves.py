"""Intermediate values: what trials reported while they ran."""

from collections.abc import Mapping

from mlmesh_katib.experiment import Trial, TrialState
from mlmesh_katib.report.chart import BOTTOM, LEFT, LEVELS, RIGHT, TOP, WIDTH, dot, frame, legend, line, svg
from mlmesh_katib.report.content import Content
from mlmesh_katib.report.markup import Markup, element, join, number
from mlmesh_katib.report.scale import Scale, fit

MAX_CURVES = 60
MAX_POINTS = 100
"""Of each curve."""
_HEIGHT = 300.0


def curves(content: Content) -> Markup:
    """Draws the reports of the first objective over their number, a line for each trial.

    Args:
        content: With at least one curve.
    """
    target = content.spec.objective.targets[0]
    x = Scale(1, max(curve.points[-1][0] for curve in content.curves), LEFT, WIDTH - RIGHT)
    seen = [value for curve in content.curves for _, value in curve.points]
    y = fit(seen, _HEIGHT - BOTTOM, TOP, maximize=target.maximize)
    levels = content.levels(content.outcomes, LEVELS) if content.outcomes else {}
    best = content.best.number if content.best is not None else 0
    marks = []
    for curve in sorted(content.curves, key=lambda curve: (curve.trial.number == best, -_level(levels, curve.trial))):
        trial = curve.trial
        stopped = " early" if trial.state is TrialState.EARLY_STOPPED else ""
        kind = "best" if trial.number == best else f"q{_level(levels, trial)}{stopped}"
        title = f"{trial.name}, {trial.state.value}: {number(curve.points[-1][1])} after {curve.reports} reports"
        points = [(x(step), y(value)) for step, value in curve.points]
        if len(points) == 1:
            marks.append(dot(*points[0], "done", trial.number, title))
        else:
            marks.append(line(points, kind, trial.number, title))
    picture = svg(_HEIGHT, f"Reports of {target.metric}", frame(x, y, "report", target.metric, whole_x=True), *marks)
    entries = [("line best", "the best"), ("line q0", "among the best"), (f"line q{LEVELS - 1}", "among the worst")]
    if any(curve.trial.state is TrialState.EARLY_STOPPED for curve in content.curves):
        entries.append(("line q3 early", "stopped early"))
    return join(picture, legend(*entries), *_notes(content, y))


def _level(levels: Mapping[int, int], trial: Trial) -> int:
    """Gives how good a trial is; one that has not ended well is as bad as the worst."""
    return levels.get(trial.number, LEVELS - 1)


def _notes(content: Content, y: Scale) -> list[Markup]:
    notes = ["The scale is logarithmic."] if y.log else []
    if any(not y.holds(value) for curve in content.curves for _, value in curve.points):
        notes.append("Values that are far worse than the others are drawn at the edge.")
    if len(content.curves) < len(content.trials):
        notes.append(f"{len(content.curves)} of {len(content.trials)} trials are drawn: the best, and others evenly.")
    if any(len(curve.points) < curve.reports for curve in content.curves):
        notes.append(f"Of more than {MAX_POINTS} reports of a trial some {MAX_POINTS} are drawn.")
    return [element("p", " ".join(notes), class_="note")] if notes else []
