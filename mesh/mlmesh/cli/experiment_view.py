"""Katib experiments, drawn. Names and values come from users: they are drawn as text, never as markup."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlmesh.cli.finding_experiments import Address
from mlmesh.cli.output import printable
from mlmesh.cli.search_state import (
    ACTIVE,
    Search,
    Target,
    as_number,
    last_part,
    parameters_of,
    reason_of,
    state_of,
)
from mlmesh.cli.sparkline import sparkline
from mlmesh.cli.times import seconds_between, short

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_STYLES = {
    "Succeeded": "green",
    "Running": "yellow",
    "Failed": "bold red",
    "Killed": "magenta",
    "EarlyStopped": "cyan",
    "MetricsUnavailable": "red",
}
SHOWN = 10
"""Trials that run, and trials that are the best, drawn at most."""
_COLUMNS = 6
"""Parameters that have a column of their own at most; more are written one after the other."""
_FAILURES = 3
_MESSAGE = 300
_COUNTS = (
    ("trials_succeeded", "succeeded"),
    ("trials_failed", "failed"),
    ("trial_metrics_unavailable", "without metrics"),
    ("trials_early_stopped", "early stopped"),
    ("trials_killed", "killed"),
    ("trials_running", "running"),
    ("trials_pending", "waiting"),
)


def number(text: str) -> str:
    """Gives a number in few digits; anything else as it is, fit to be printed."""
    value = as_number(text)
    return printable(text) if value is None else f"{value:.5g}"


def assignments(trial: dict[str, Any]) -> str:
    """Gives the parameters of a trial in one line: rate=0.1, layers=3."""
    return ", ".join(f"{printable(name)}={number(value)}" for name, value in sorted(parameters_of(trial).items()))


def search_picture(search: Search, shown: int = SHOWN) -> "Group":
    """Draws an experiment: what it searches for, how far it is, the trials that run, and the best.

    Args:
        search: The experiment.
        shown: Rows of each table at most.
    """
    from rich.console import Group

    lines: list[RenderableType] = [_head(search), _about(search), _progress(search), *_trends(search)]
    running = [one for one in search.trials if state_of(one) == "Running"]
    for title, trials, all_of_them in (
        ("running", running[:shown], len(running)),
        _best_rows(search, shown),
    ):
        if trials:
            lines += [_text(f"\n{title}", "bold"), trial_table(search, trials, one_line=True)]
        if all_of_them > shown:
            lines.append(_text(f"and {all_of_them - shown} more", "dim"))
    lines += _failures(search)
    if search.best and len(search.targets) == 1:
        lines.append(_text("best: ", "", (best_line(search), "bold")))
    if search.state == "Failed":
        lines.append(_text(printable(search.reason), "red"))
    return Group(*lines)


def trial_table(
    search: Search, trials: Sequence[dict[str, Any]], metrics: Sequence[str] = (), *, one_line: bool = False
) -> "Table":
    """Draws trials with parameters and objectives, in the order given.

    Args:
        search: The experiment; its best trials are marked with ★, trials beyond constraints with ✗.
        trials: Some of its trials.
        metrics: Further metrics that get a column.
        one_line: Cut what is too wide, so that a trial takes one line.
    """
    from rich.table import Table

    names = sorted({name for trial in trials for name in parameters_of(trial)})
    columns = names if len(names) <= _COLUMNS else []
    wanted = list(dict.fromkeys([*(target.metric for target in search.targets), *metrics]))
    given_heads = columns or (["parameters"] if names else [])
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ["trial", *given_heads, "state", *wanted, "took"]:
        # Columns that may wrap give way where there is too little room: the parameters.
        table.add_column(_text(printable(head), ""), no_wrap=one_line and head not in given_heads)
    for trial in trials:
        is_best = last_part(trial) in search.marked
        given = parameters_of(trial)
        state = state_of(trial)
        texts = [number(given.get(name, "")) for name in columns] or ([assignments(trial)] if names else [])
        cells = [_text(text, "") for text in texts]
        for cell in cells if one_line else ():
            cell.no_wrap, cell.overflow = True, "ellipsis"
        table.add_row(
            _text(printable(last_part(trial)), "bold" if is_best else ""),
            *cells,
            _text(printable(state), _STYLES.get(state, "")),
            *(_value(search, trial, metric, marks=place == 0) for place, metric in enumerate(wanted)),
            short(seconds_between(trial.get("start_time"), trial.get("completion_time"))),
        )
    return table


def best_line(search: Search) -> str:
    """Says which trial is the best, with what, and how good it is."""
    metric, value = printable(search.metric), number(search.value(search.best))
    return f"{printable(search.best.get('best_trial_name'))}  {metric}={value}  ({assignments(search.best)})"


def search_lines(search: Search) -> Iterator[str]:
    """Says what has changed: a line for each trial that began or ended, and for the state of the experiment."""
    for trial in search.changed:
        state = state_of(trial)
        if state == "Created":
            continue
        line = f"{last_part(trial)} {state}  {assignments(trial)}"
        for target in search.targets:
            value = search.value(trial, target.metric)
            line += f"  {printable(target.metric)}={number(value)}" if value and state not in ACTIVE else ""
        broken = search.violated(trial) if state not in ACTIVE else []
        line += f"  ✗ {', '.join(map(printable, broken))}" if broken else ""
        line += "  ★" if last_part(trial) in search.marked else ""
        yield line
    if search.status.get("paused") and not search.ended:
        yield f"experiment {search.name} is paused; trials that run go on to their ends"
    if search.ended:
        yield f"experiment {search.name} {search.state}: {search.reason}"


def experiment_table(experiments: Sequence[dict[str, Any]]) -> "Table":
    """Draws a list of experiments."""
    from rich.table import Table

    heads = ("experiment", "state", "algorithm", "trials", "best")
    table = Table(*heads, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for one in experiments:
        search = Search(one)
        limit = search.max_trials
        table.add_row(
            _text(printable(search.name), ""),
            _state(search),
            _text(printable(search.algorithm), ""),
            f"{search.trials_ended}" + ("" if limit is None else f" of {limit}"),
            _text(best_line(search) if search.best else "", ""),
        )
    return table


def _head(search: Search) -> "Text":
    took = short(seconds_between(search.status.get("start_time"), search.status.get("completion_time")))
    return _text("experiment ", "", (printable(search.name), "bold"), "  ", _state(search), f"  {took}")


def _about(search: Search) -> "Text":
    parts = [printable(search.algorithm)] if search.algorithm else []
    parts += [_wanted(target) for target in search.targets]
    for metric, low, high in search.constraints:
        bounds = [f">= {low:.5g}"] if low is not None else []
        bounds += [f"<= {high:.5g}"] if high is not None else []
        parts.append(f"{printable(metric)} {' and '.join(bounds)}")
    return _text("  ·  ".join(parts), "dim")


def _wanted(target: Target) -> str:
    goal = "" if target.goal is None else f" (goal {target.goal:.5g})"
    return f"{'maximize' if target.maximize else 'minimize'} {printable(target.metric)}{goal}"


def _progress(search: Search) -> "RenderableType":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    status = search.status
    counts = ", ".join(f"{status[key]} {word}" for key, word in _COUNTS if status.get(key))
    ended, limit = search.trials_ended, search.max_trials
    words = _text(f"{ended}{'' if limit is None else f' of {limit}'} trials", "", (f"  {counts}", "dim"))
    if limit is None:
        return words
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_row(ProgressBar(total=max(1, limit), completed=min(ended, limit), width=30), words)
    return line


def _trends(search: Search) -> Iterator["Text"]:
    for target in search.targets:
        trend = search.trend(target)
        if len(trend) > 1:
            label = "best so far" if len(search.targets) == 1 else f"best {printable(target.metric)} so far"
            yield _text(f"{label}  ", "", (sparkline(trend), "green"), f"  {trend[-1]:.5g}")


def _best_rows(search: Search, shown: int) -> tuple[str, list[dict[str, Any]], int]:
    """Gives title, trials and how many there are of them all: the best, or of several objectives the Pareto front."""
    ranked = search.ranked()
    if len(search.targets) == 1:
        return "best trials", ranked[:shown], min(len(ranked), shown)
    front = [one for one in ranked if last_part(one) in search.marked]
    return "Pareto front", front[:shown], len(front)


def _failures(search: Search) -> Iterator["Text"]:
    """Says of the last trials that failed why, and where to look."""
    failed = [one for one in search.trials if state_of(one) in {"Failed", "MetricsUnavailable"}]
    for trial in failed[-_FAILURES:]:
        name = printable(last_part(trial))
        yield _text(f"{name} {state_of(trial)}: {printable(reason_of(trial)[:_MESSAGE])}", "red")
    if failed:
        yield _text(f"  what it printed: {_command(search, 'logs')} {printable(last_part(failed[-1]))}", "dim")


def _command(search: Search, verb: str) -> str:
    """Gives the command that does something with the experiment."""
    parts = str(search.experiment.get("name", "")).split("/")
    return printable(Address(parts[1] if len(parts) > 1 else "default", search.name).command(verb))


def _value(search: Search, trial: dict[str, Any], metric: str, *, marks: bool) -> "Text":
    """Draws what counts of a metric; of a trial that runs, the last value and how it went."""
    name = last_part(trial)
    if state_of(trial) in ACTIVE:
        values = search.reported.get(name, ()) if metric == search.metric else ()
        return _text(f"{values[-1]:.5g} ", "", (sparkline(values, 16), "yellow")) if values else _text("", "")
    is_best = name in search.marked
    found = _text(number(search.value(trial, metric)), "bold green" if is_best else "")
    if marks and is_best:
        found.append(" ★", "bold green")
    broken = search.violated(trial) if marks else []
    if broken:
        found.append(f" ✗ {', '.join(map(printable, broken))}", "red")
    return found


def _state(search: Search) -> "Text":
    paused = bool(search.status.get("paused")) and not search.ended
    return _text("Paused" if paused else printable(search.state), _STYLES.get(search.state, ""))


def _text(text: str, style: str, *more: "str | tuple[str, str] | Text") -> "Text":
    from rich.text import Text

    return Text.assemble((text, style), *more)
