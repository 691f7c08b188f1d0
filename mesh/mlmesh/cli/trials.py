"""Commands for the trials of an experiment: trials, logs, metrics."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlmesh.cli.completion import complete_trials
from mlmesh.cli.connection import connected
from mlmesh.cli.experiments import ExperimentName
from mlmesh.cli.finding_experiments import DEFAULT_NAMESPACE, Address, explained, in_namespace, trial_name
from mlmesh.cli.options import DataDir, IngressUrl, Json, Namespace
from mlmesh.cli.output import console, emit, fail, printable

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress
    from mlmesh.cli.search_state import Search

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_REPORTS = 1000
_NOT_FOUND = 404
_COLUMNS = ("made", "state", "took", "objective")
"""What trials can be sorted by, besides metrics and parameters."""

TrialName = Annotated[
    str,
    typer.Argument(metavar="TRIAL", help="Name of the trial, its number, or: best", autocompletion=complete_trials),
]


class Format(StrEnum):
    """Forms of a list."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def list_trials(
    experiment: ExperimentName,
    best: Annotated[int, typer.Option(min=0, help="Only so many, the best first")] = 0,
    sort: Annotated[
        str, typer.Option(help="By made, state, took, objective, or the name of a metric or parameter")
    ] = "",
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round")] = False,
    state: Annotated[str, typer.Option(help="Only those: Succeeded, Failed, EarlyStopped, Running, ...")] = "",
    form: Annotated[Format, typer.Option("--format", "-f", help="Form of the list")] = Format.TABLE,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List the trials of an experiment, in the order they were made; ★ is the best, ✗ is beyond a constraint."""
    from mlmesh.cli.reading_trials import SearchReader
    from mlmesh.cli.search_state import metrics_of, state_of

    if best and sort:
        fail("give one of --best and --sort", as_json=as_json, code=2)
    address = Address(namespace or DEFAULT_NAMESPACE, experiment)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(address, as_json=as_json):
        search = SearchReader(mesh, address.path).read()
    found = search.ranked() if best else list(search.trials)
    if state:
        found = [one for one in found if state_of(one).casefold() == state.casefold()]
    if sort:
        found = _sorted(search, found, sort, as_json)
    if reverse:
        found.reverse()
    found = found[: best or None]
    if as_json or form is Format.JSON:
        emit(found)
    elif form is Format.CSV:
        _write_csv(search, found)
    elif found:
        from mlmesh.cli.experiment_view import trial_table

        console().print(trial_table(search, found, metrics_of(found)))
    else:
        console().print(printable(f"{experiment} has no such trials yet"), markup=False, soft_wrap=True)


def logs(
    experiment: ExperimentName,
    trial: TrialName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the trial ends")] = False,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show what a trial has printed."""
    from mlmesh.cli.client import IngressError

    address = Address(namespace or DEFAULT_NAMESPACE, experiment)
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        with explained(address, as_json=as_json, trial=trial):
            name = trial_name(mesh, address, trial, as_json)
            mesh.get(address.trial(name))
        again = f"mlmesh tune logs {experiment} {name} -f{in_namespace(address.namespace)}"
        lines = mesh.lines(f"{address.trial(name)}/log", **({"follow": "true"} if follow else {}))
        try:
            _print_lines(lines, name, follow, as_json)
        except IngressError as error:
            if error.status != _NOT_FOUND:
                raise
            fail(f"{error}; wait for it with: {again}", as_json=as_json)
        except KeyboardInterrupt:
            sys.stderr.write(printable(f"\nmlmesh: the trial goes on; come back with: {again}\n", keep="\n"))
            raise typer.Exit(130) from None


def metrics(
    experiment: ExperimentName,
    trial: TrialName,
    metric: Annotated[str, typer.Option(help="Only this one")] = "",
    form: Annotated[
        Format, typer.Option("--format", "-f", help="table sums up; csv and json have every report")
    ] = Format.TABLE,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show what a trial has reported, while it runs too."""
    address = Address(namespace or DEFAULT_NAMESPACE, experiment)
    with (
        connected(ingress, data_dir, as_json=as_json) as mesh,
        explained(address, as_json=as_json, trial=trial),
    ):
        name = trial_name(mesh, address, trial, as_json)
        reports = list(_reports(mesh, f"{address.trial(name)}/observations", metric))
    if as_json or form is Format.JSON:
        emit(reports)
    elif form is Format.CSV:
        _write_rows([["time", "metric", "value"], *([r["time"], r["metric"], r["value"]] for r in reports)])
    elif reports:
        _print_metrics(reports)
    else:
        what = f"nothing as {metric}" if metric else "nothing"
        text = f"{name} has reported {what} yet; what it printed: {address.command('logs')} {name}"
        console().print(printable(text), markup=False, soft_wrap=True)


def _sorted(search: "Search", trials: list[dict[str, Any]], by: str, as_json: bool) -> list[dict[str, Any]]:
    """Sorts trials, numbers before other texts; those that have nothing to sort by come last."""
    from mlmesh.cli.search_state import as_number, metrics_of, parameters_of, state_of
    from mlmesh.cli.times import seconds_between

    parameters = {name for trial in trials for name in parameters_of(trial)}
    metric_names = set(metrics_of(trials))
    if by not in {*_COLUMNS, *parameters, *metric_names}:
        there = ", ".join([*_COLUMNS, *sorted(parameters | metric_names)])
        fail(f"cannot sort by {by!r}; there are: {there}", as_json=as_json, code=2)
    if by == "made":
        return trials

    def value_of(trial: dict[str, Any]) -> object:
        if by == "state":
            return state_of(trial)
        if by == "took":
            return seconds_between(trial.get("start_time"), trial.get("completion_time"))
        if by == "objective" or by in metric_names:
            return search.value(trial, "" if by == "objective" else by)
        return parameters_of(trial).get(by)

    def key(trial: dict[str, Any]) -> tuple[bool, bool, float, str]:
        value = value_of(trial)
        number = as_number(value)
        return value in (None, ""), number is None, number or 0.0, str(value)

    return sorted(trials, key=key)


def _write_csv(search: "Search", trials: list[dict[str, Any]]) -> None:
    from mlmesh.cli.search_state import last_part, metrics_of, parameters_of, state_of

    parameters = sorted({name for trial in trials for name in parameters_of(trial)})
    names = metrics_of(trials)
    head = ["trial", "state", *parameters, *names, "start_time", "completion_time", "constraints_violated"]
    rows = [head]
    for trial in trials:
        given = parameters_of(trial)
        rows.append(
            [
                last_part(trial),
                state_of(trial),
                *(given.get(name, "") for name in parameters),
                *(search.value(trial, name) for name in names),
                str(trial.get("start_time") or ""),
                str(trial.get("completion_time") or ""),
                " ".join(search.violated(trial)),
            ]
        )
    _write_rows(rows)


def _write_rows(rows: list[list[str]]) -> None:
    """Writes CSV; to a terminal, fit for one."""
    shown = sys.stdout.isatty()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for row in rows:
        writer.writerow([printable(cell) for cell in row] if shown else row)


def _print_lines(lines: Iterator[str], trial: str, follow: bool, as_json: bool) -> None:
    """Prints a log; on a terminal without what would change it, colours among that."""
    if as_json and not follow:
        emit({"trial": trial, "lines": list(lines)})
        return
    shown = sys.stdout.isatty()
    for line in lines:
        if as_json:
            text = json.dumps({"trial": trial, "line": line})
        else:
            text = printable(_COLOURS.sub("", line), keep="\t") if shown else line
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _reports(mesh: "Ingress", path: str, metric: str) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        page = mesh.get(path, after=after, page_size=_REPORTS, metric=metric or None)
        found = page.get("reports", [])
        yield from found
        if len(found) < _REPORTS:
            return
        after = int(page["next_position"])


def _print_metrics(reports: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from mlmesh.cli.experiment_view import number
    from mlmesh.cli.search_state import as_number
    from mlmesh.cli.sparkline import sparkline

    values: dict[str, list[str]] = {}
    for one in reports:
        values.setdefault(str(one.get("metric")), []).append(str(one.get("value", "")))
    heads = ("metric", "reports", "first", "latest", "min", "max", "")
    table = Table(*heads, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, texts in values.items():
        numbers = [found for text in texts if (found := as_number(text)) is not None]
        ends = (f"{min(numbers):.5g}", f"{max(numbers):.5g}") if numbers else ("", "")
        cells = (printable(name), str(len(texts)), number(texts[0]), number(texts[-1]), *ends)
        table.add_row(*(Text(cell) for cell in cells), Text(sparkline(numbers), "green"))
    console().print(table)
