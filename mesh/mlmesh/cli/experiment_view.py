"""Katib experiments, drawn."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlmesh.cli.times import seconds_between, short

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_STYLES = {
    "Succeeded": "green",
    "Running": "yellow",
    "Failed": "bold red",
    "Killed": "magenta",
    "EarlyStopped": "cyan",
    "MetricsUnavailable": "red",
}
_ENDED = ("Failed", "Succeeded")
_SHOWN = 40
"""Trials drawn at most: a terminal is not higher."""


@dataclass
class Search:
    """An experiment and its trials, as they are now."""

    experiment: dict[str, Any]
    trials: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the experiment, without its namespace."""
        return last_part(self.experiment)

    @property
    def metric(self) -> str:
        """Name of the objective's metric."""
        return str(self._objective.get("objectiveMetricName", "objective"))

    @property
    def _objective(self) -> dict[str, Any]:
        found: dict[str, Any] = self.experiment.get("manifest", {}).get("spec", {}).get("objective", {})
        return found

    @property
    def state(self) -> str:
        """The condition that holds, Succeeded and Failed before others."""
        return state_of(self.experiment.get("status", {}))

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in _ENDED

    @property
    def best(self) -> dict[str, Any]:
        """The best trial so far: best_trial_name, parameter_assignments, observation; empty before there is one."""
        found: dict[str, Any] = self.experiment.get("status", {}).get("current_optimal_trial", {})
        return found

    @property
    def reason(self) -> str:
        """Why it is in its state."""
        held = [c for c in self.experiment.get("status", {}).get("conditions", []) if c.get("status") == "True"]
        return str(held[-1].get("message", "")) if held else ""

    def objective(self, trial: dict[str, Any]) -> str:
        """The objective of a trial (or of the best), as it reported it; empty while there is none."""
        strategies = {s.get("name"): s.get("value") for s in self._objective.get("metricStrategies", [])}
        default = "max" if self._objective.get("type") == "maximize" else "min"
        for metric in trial.get("observation", {}).get("metrics", []):
            if metric.get("name") == self.metric:
                return str(metric.get(strategies.get(self.metric) or default, ""))
        return ""


def last_part(resource: dict[str, Any]) -> str:
    """Gives the last part of a resource name."""
    return str(resource.get("name", "")).rsplit("/", 1)[-1]


def state_of(status: dict[str, Any]) -> str:
    """Gives the condition that holds; of several the one that says most."""
    held = [str(c.get("type")) for c in status.get("conditions", []) if c.get("status") == "True"]
    return next((state for state in _ENDED if state in held), held[-1] if held else "Created")


def parameters_of(trial: dict[str, Any]) -> dict[str, str]:
    """Gives the parameters of a trial, or of the best."""
    return {each["name"]: each["value"] for each in trial.get("parameter_assignments", [])}


def number(text: str) -> str:
    """Gives a number in few digits; anything else as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.5g}" if math.isfinite(value) else text


def trial_table(search: Search) -> "Table":
    """Draws the trials with parameters and objective, in the order they were made; the best is marked."""
    from rich.table import Table
    from rich.text import Text

    names = sorted({name for trial in search.trials for name in parameters_of(trial)})
    table = Table("trial", *names, "state", search.metric, "took", box=None, padding=(0, 2, 0, 0), header_style="dim")
    best = search.best.get("best_trial_name")
    if len(search.trials) > _SHOWN:
        table.add_row(Text(f"... {len(search.trials) - _SHOWN} more", "dim"))
    for trial in search.trials[-_SHOWN:]:
        given = parameters_of(trial)
        state = state_of(trial)
        is_best = last_part(trial) == best
        value = number(search.objective(trial))
        table.add_row(
            Text(last_part(trial), "bold" if is_best else ""),
            *(number(given.get(name, "")) for name in names),
            Text(state, _STYLES.get(state, "")),
            Text(f"{value} ★" if is_best else value, "bold green" if is_best else ""),
            short(seconds_between(trial.get("start_time"), trial.get("completion_time"))),
        )
    return table


def search_picture(search: Search) -> "Group":
    """Draws an experiment: how far it is, its trials, and the best."""
    from rich.console import Group
    from rich.text import Text

    status = search.experiment.get("status", {})
    counts = [
        f"{status[key]} {word}"
        for key, word in (
            ("trials_running", "running"),
            ("trials_succeeded", "succeeded"),
            ("trials_failed", "failed"),
            ("trial_metrics_unavailable", "without metrics"),
        )
        if status.get(key)
    ]
    took = short(seconds_between(status.get("start_time"), status.get("completion_time")))
    head = Text.assemble(
        "experiment ",
        (search.name, "bold"),
        "  ",
        (search.state, _STYLES.get(search.state, "")),
        f"  {took}  ",
        (", ".join(counts), "dim"),
    )
    lines: list[Any] = [head, trial_table(search)]
    if search.best:
        lines.append(Text.assemble("best: ", (best_line(search), "bold")))
    if search.state == "Failed":
        lines.append(Text(search.reason, "red"))
    return Group(*lines)


def best_line(search: Search) -> str:
    """Says which trial is the best, with what, and how good it is."""
    given = ", ".join(f"{name}={number(value)}" for name, value in sorted(parameters_of(search.best).items()))
    value = number(search.objective(search.best))
    return f"{search.best.get('best_trial_name')}  {search.metric}={value}  ({given})"


def search_lines(search: Search) -> Iterator[str]:
    """Says what is true of an experiment, a line for each trial that has ended."""
    for trial in search.trials:
        state = state_of(trial)
        if state in {"Created", "Running"}:
            continue
        given = " ".join(f"{name}={number(value)}" for name, value in sorted(parameters_of(trial).items()))
        value = search.objective(trial)
        yield f"{last_part(trial)} {state}  {given}" + (f"  {search.metric}={number(value)}" if value else "")


def experiment_table(experiments: Sequence[dict[str, Any]]) -> "Table":
    """Draws a list of experiments."""
    from rich.table import Table
    from rich.text import Text

    table = Table("experiment", "state", "trials", "best", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for each in experiments:
        search = Search(each)
        table.add_row(
            search.name,
            Text(search.state, _STYLES.get(search.state, "")),
            str(each.get("status", {}).get("trials", 0)),
            best_line(search) if search.best else "",
        )
    return table
