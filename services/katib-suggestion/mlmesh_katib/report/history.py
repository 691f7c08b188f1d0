"""The optimisation history: what each trial reached, and the best so far."""

from mlmesh_katib.experiment import TrialState
from mlmesh_katib.report.chart import BOTTOM, LEFT, RIGHT, TOP, WIDTH, dot, frame, legend, line, svg
from mlmesh_katib.report.content import Content, Outcome, evenly
from mlmesh_katib.report.markup import Markup, element, join, number
from mlmesh_katib.report.scale import Scale, fit

MAX_POINTS = 1500
_HEIGHT = 300.0
_FAILED = frozenset({TrialState.FAILED, TrialState.METRICS_UNAVAILABLE})


def history(content: Content, objective: int) -> Markup:
    """Draws the history of an objective.

    Args:
        content: With at least one outcome.
        objective: Its place among the experiment's.
    """
    target = content.spec.objective.targets[objective]
    last = max(trial.number for trial in content.trials)
    x = Scale(0.5, last + 0.5, LEFT, WIDTH - RIGHT)
    seen = [outcome.values[objective] for outcome in content.outcomes]
    y = fit(seen, _HEIGHT - BOTTOM, TOP, maximize=target.maximize)
    steps = _improvements(content, objective)
    marks: list[Markup] = []
    if target.goal is not None and y.holds(target.goal):
        place = y(target.goal)
        said = element("title", f"goal {number(target.goal)}")
        marks.append(element("line", said, class_="goal", x1=x.start, x2=x.end, y1=place, y2=place))
    shown = _shown(content, {outcome.trial.number for outcome in steps})
    marks += [_point(content, outcome, objective, x, y) for outcome in shown]
    failed = [trial for trial in content.trials if trial.state in _FAILED]
    for trial in evenly(failed, MAX_POINTS // 3):
        place, said = x(trial.number), element("title", f"{trial.name}: {trial.state.value}")
        marks.append(
            element("line", said, class_="failed", x1=place, x2=place, y1=y.start - 9, y2=y.start, data_t=trial.number)
        )
    points: list[tuple[float, float]] = []
    for outcome in steps:
        at = (x(outcome.trial.number), y(outcome.values[objective]))
        points += [(at[0], points[-1][1]), at] if points else [at]
    if points:
        marks.append(line([*points, (x.end, points[-1][1])], "best"))
    axes = frame(x, y, "trial", target.metric, whole_x=True)
    return join(svg(_HEIGHT, f"Optimisation history of {target.metric}", axes, *marks), *_words(content, objective, y))


def _point(content: Content, outcome: Outcome, objective: int, x: Scale, y: Scale) -> Markup:
    kind = "stopped" if outcome.trial.state is TrialState.EARLY_STOPPED else "done"
    if not outcome.kept:
        kind = "broken"
    value = outcome.values[objective]
    if not y.holds(value):
        kind += " off"
    is_best = content.best is not None and outcome.trial.number == content.best.number and not objective
    title = f"{outcome.trial.name}: {number(value)}"
    size = 5.5 if is_best else 3.0
    return dot(x(outcome.trial.number), y(value), "top" if is_best else kind, outcome.trial.number, title, size)


def _improvements(content: Content, objective: int) -> list[Outcome]:
    """Gives the trials that were better than all before them."""
    found: list[Outcome] = []
    for outcome in content.outcomes:
        if outcome.kept and (not found or outcome.losses[objective] < found[-1].losses[objective]):
            found.append(outcome)
    return found


def _shown(content: Content, wanted: set[int]) -> list[Outcome]:
    """Thins trials out; those that are wanted, and the best one, stay. The best one is drawn last."""
    best = content.best.number if content.best is not None else 0
    chosen = {outcome.trial.number for outcome in evenly(content.outcomes, MAX_POINTS)} | wanted | {best}
    shown = [outcome for outcome in content.outcomes if outcome.trial.number in chosen]
    return sorted(shown, key=lambda outcome: outcome.trial.number == best)


def _words(content: Content, objective: int, y: Scale) -> list[Markup]:
    entries = [("done", "trial"), ("line best", "best so far")]
    if not objective and content.best is not None:
        entries.append(("top", "the best"))
    if any(outcome.trial.state is TrialState.EARLY_STOPPED for outcome in content.outcomes):
        entries.append(("stopped", "stopped early"))
    if any(not outcome.kept for outcome in content.outcomes):
        entries.append(("broken", "breaks a constraint"))
    if any(trial.state in _FAILED for trial in content.trials):
        entries.append(("line failed", "failed"))
    if content.spec.objective.targets[objective].goal is not None:
        entries.append(("line goal", "goal"))
    notes = []
    if y.log:
        notes.append("The scale is logarithmic.")
    outside = sum(not y.holds(outcome.values[objective]) for outcome in content.outcomes)
    if outside:
        notes.append(f"{outside} trials are far worse than the others and are drawn, hollow, at the edge.")
    if len(content.outcomes) > MAX_POINTS:
        notes.append(
            f"Of {len(content.outcomes)} trials some {MAX_POINTS} are drawn, all that were the best so far among them."
        )
    said = [legend(*entries)]
    return [*said, element("p", " ".join(notes), class_="note")] if notes else said
