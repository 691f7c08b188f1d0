"""The page: what the experiment was, its charts, its trials."""

import time
from collections.abc import Mapping, Sequence

import yaml

from mlmesh_katib.experiment import Trial, TrialState
from mlmesh_katib.report.bars import bars
from mlmesh_katib.report.content import Content, Outcome
from mlmesh_katib.report.coordinates import coordinates
from mlmesh_katib.report.curves import curves
from mlmesh_katib.report.front import fronts
from mlmesh_katib.report.history import history
from mlmesh_katib.report.look import POLICY, SCRIPT, STYLE
from mlmesh_katib.report.markup import Markup, cut, element, number

MAX_ROWS = 1000
"""Trials in the table."""
MAX_FAILED = 50
"""Trials in the table of those that failed."""
_MAX_COLUMNS = 20
_MAX_TEXT = 300
_FAILED = (TrialState.FAILED, TrialState.METRICS_UNAVAILABLE)


def page(content: Content) -> str:
    """Writes the report as HTML."""
    experiment = content.experiment
    title = f"{experiment.name}: report of an experiment"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name_="viewport", content="width=device-width,initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element(
        "body",
        element("h1", experiment.name),
        element("p", f"Experiment in namespace {experiment.namespace}, {_state(content)}.", class_="note"),
        _facts(content),
        *_charts(content),
        *_failures(content),
        *_table(content),
        _manifest(content),
        element("script", Markup(SCRIPT)),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en")


def _state(content: Content) -> str:
    holding = [condition for condition in content.experiment.conditions if condition.holds]
    said = holding[-1].type if holding else "Created"
    return said + (", paused" if content.experiment.paused else "")


def _facts(content: Content) -> Markup:
    experiment, spec = content.experiment, content.spec
    counts: dict[str, int] = {}
    for trial in content.trials:
        counts[trial.state.value] = counts.get(trial.state.value, 0) + 1
    wanted = [
        f"{'maximize' if target.maximize else 'minimize'} {target.metric}"
        + (f", goal {number(target.goal)}" if target.goal is not None else "")
        for target in spec.objective.targets
    ]
    rows = [("Objective", "; ".join(wanted))]
    for constraint in spec.objective.constraints:
        bounds = [f"at least {number(constraint.low)}"] if constraint.low is not None else []
        bounds += [f"at most {number(constraint.high)}"] if constraint.high is not None else []
        rows.append(("Constraint", f"{constraint.metric} {' and '.join(bounds)}"))
    settings = ", ".join(f"{name} {value}" for name, value in spec.settings.items())
    rows.append(("Algorithm", spec.algorithm + (f" ({settings})" if settings else "")))
    if spec.early_stopping:
        rows.append(("Early stopping", spec.early_stopping))
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    rows.append(("Trials", f"{len(content.trials)} of at most {spec.max_trials}" + (f": {summary}" if summary else "")))
    began, ended = experiment.created_ms, experiment.completed_ms
    took = f", took {(ended - began) / 1000:.1f} s" if ended is not None else ""
    rows.append(("Began", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(began / 1000)) + took))
    messages = [condition.message for condition in experiment.conditions if condition.holds and condition.message]
    if messages:
        rows.append(("Last word", messages[-1]))
    best = content.best
    if best is not None:
        metrics = ", ".join(f"{one.name} {_value(content, one.name, best)}" for one in best.observation)
        rows.append(("Best trial", f"{best.name}: {metrics}"))
        rows.append(("With", _words(best.assignments)))
    if content.front:
        rows.append(("Pareto front", f"{len(content.front)} trials that no other one beats in all objectives"))
    cells = [element("tr", element("th", name), element("td", cut(text, 2000))) for name, text in rows]
    return element("table", *cells, class_="facts")


def _charts(content: Content) -> list[Markup]:
    if not content.outcomes:
        return [element("p", "No trial has reported the objective yet, so there is nothing to draw.", class_="note")]
    drawn: list[Markup] = []
    for place, target in enumerate(content.spec.objective.targets):
        drawn += [element("h2", f"Optimisation history: {target.metric}"), history(content, place)]
    if content.spec.objective.others:
        drawn += [element("h2", "Pareto front"), fronts(content)]
    for found in content.importances:
        drawn += [element("h2", f"Importance of parameters for {found.metric}"), bars(found)]
    if content.spec.space.parameters:
        drawn += [element("h2", "Parallel coordinates"), coordinates(content)]
    if content.curves:
        drawn += [element("h2", "Intermediate values"), curves(content)]
    return drawn


def _failures(content: Content) -> list[Markup]:
    failed = [trial for trial in content.trials if trial.state in _FAILED]
    if not failed:
        return []
    rows = [
        element(
            "tr",
            element("td", trial.name),
            element("td", trial.state.value),
            element("td", cut(_reason(trial), _MAX_TEXT)),
            element("td", cut(_words(trial.assignments), _MAX_TEXT)),
            data_t=str(trial.number),
        )
        for trial in failed[:MAX_FAILED]
    ]
    head = element("tr", *(element("th", name) for name in ("trial", "state", "why", "parameters")))
    said = (
        [element("p", f"The first {MAX_FAILED} of {len(failed)}.", class_="note")] if len(failed) > MAX_FAILED else []
    )
    return [element("h2", "Failed trials"), *said, element("div", element("table", head, *rows), class_="wide")]


def _table(content: Content) -> list[Markup]:
    if not content.trials:
        return []
    known = {outcome.trial.number: outcome for outcome in content.outcomes}
    parameters = _columns(content)
    targets = [target.metric for target in content.spec.objective.targets]
    names = ["trial", "state", *targets, *parameters]
    ordered = sorted(content.trials, key=lambda trial: _rank(known.get(trial.number), trial))
    rows = []
    for trial in ordered[:MAX_ROWS]:
        outcome = known.get(trial.number)
        values = [number(value) for value in outcome.values] if outcome else [""] * len(targets)
        state = trial.state.value + ("" if outcome is None or outcome.kept else ", breaks a constraint")
        given = [cut(trial.assignments.get(name, ""), 60) for name in parameters]
        rows.append(
            element(
                "tr", *(element("td", text) for text in (trial.name, state, *values, *given)), data_t=str(trial.number)
            )
        )
    notes = "The best first, by the first objective."
    if len(ordered) > MAX_ROWS:
        notes += f" {MAX_ROWS} of {len(ordered)} trials."
    left = len(_all_parameters(content)) - len(parameters)
    if left > 0:
        notes += f" {left} parameters are left out."
    head = element("tr", *(element("th", cut(name, 40)) for name in names))
    return [
        element("h2", "Trials"),
        element("p", notes, class_="note"),
        element("div", element("table", head, *rows), class_="wide"),
    ]


def _short(value: str) -> str:
    """Shortens a parameter's value; what it is to the last digit is in the trial."""
    try:
        return number(float(value)) if len(value) > 8 else value
    except ValueError:
        return cut(value, 60)


def _rank(outcome: Outcome | None, trial: Trial) -> tuple[int, float, int]:
    if outcome is None:
        return 2, 0.0, trial.number
    return int(not outcome.kept), outcome.losses[0], trial.number


def _all_parameters(content: Content) -> list[str]:
    found = dict.fromkeys(parameter.name for parameter in content.spec.space.parameters)
    for trial in content.trials[:MAX_ROWS]:
        found.update(dict.fromkeys(trial.assignments))
    return list(found)


def _columns(content: Content) -> Sequence[str]:
    return _all_parameters(content)[:_MAX_COLUMNS]


def _manifest(content: Content) -> Markup:
    text = yaml.safe_dump(dict(content.experiment.manifest), sort_keys=False, allow_unicode=True)
    return element("details", element("summary", "The experiment as YAML"), element("pre", text))


def _reason(trial: Trial) -> str:
    holding = [condition for condition in trial.conditions if condition.holds and condition.type == trial.state.value]
    return holding[-1].message if holding else ""


def _words(assignments: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in assignments.items())


def _value(content: Content, metric: str, trial: Trial) -> str:
    """Gives what counts of a metric: of an objective by its strategy, of others the latest report."""
    for place, target in enumerate(content.spec.objective.targets):
        if target.metric == metric:
            losses = content.spec.objective.losses(trial.observation)
            if losses is not None:
                return number(-losses[place] if target.maximize else losses[place])
    return next(cut(summary.latest, 40) for summary in trial.observation if summary.name == metric)
