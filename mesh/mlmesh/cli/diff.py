"""`mlmesh diff`: in what two runs differ."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlmesh.cli.cache import show_difference, shown
from mlmesh.cli.completion import complete_runs
from mlmesh.cli.connection import connected
from mlmesh.cli.finding_runs import analysis_path, whole_id
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit
from mlmesh.cli.run_view import STYLES
from mlmesh.cli.times import short

if TYPE_CHECKING:
    from rich.text import Text


def diff(
    before: Annotated[
        str,
        typer.Argument(
            metavar="RUN1", help="A run, by the beginning of its id, or: latest", autocompletion=complete_runs
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="RUN2", help="The other", autocompletion=complete_runs)],
    show_all: Annotated[bool, typer.Option("--all", help="List the tasks that do not differ, too")] = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Say in what two runs differ: parameters, pipeline, and task by task states, times, inputs, outputs, metrics."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        ids = [whole_id(mesh, one, as_json) for one in (before, after)]
        found = mesh.get(analysis_path(ids[0], "diff"), other=f"runs/{ids[1]}")
    if as_json:
        emit(found)
        return
    _show(found, show_all)


def _show(found: dict[str, Any], show_all: bool) -> None:
    out = console()
    for side, mark in (("before", "-"), ("after", "+")):
        state = str(found.get(f"{side}_state", ""))
        took = short(found.get(f"{side}_seconds"))
        out.print(
            f"{mark} {str(found.get(side, '')).removeprefix('runs/')}  [{STYLES.get(state, 'none')}]{state}[/]  {took}"
        )
    if found.get("parameters"):
        out.print("\n[bold]parameters[/]")
        _pairs(found["parameters"])
    if found.get("pipeline"):
        out.print("\n[bold]pipeline[/]")
        for each in found["pipeline"]:
            show_difference(each)
    _tasks([task for task in found.get("tasks", []) if show_all or task.get("changed")], len(found.get("tasks", [])))


def _pairs(pairs: list[dict[str, Any]]) -> None:
    out = console()
    for pair in pairs:
        out.print(_pair(pair), soft_wrap=True)


def _pair(pair: dict[str, Any], kind: str = "") -> "Text":
    from rich.text import Text

    line = Text.assemble("  ", (f"{kind} " if kind else "", "dim"), f"{pair.get('name', '')}: ")
    line.append(shown(pair.get("before"), "before" in pair), "red")
    line.append(" → ")
    line.append(shown(pair.get("after"), "after" in pair), "green")
    if "delta" in pair:
        line.append(f"  ({float(pair['delta']):+g})", "bold")
    return line


def _tasks(tasks: list[dict[str, Any]], total: int) -> None:
    from rich.table import Table

    out = console()
    out.print(f"\n[bold]tasks[/]  {sum(bool(task.get('changed')) for task in tasks)} of {total} differ")
    if not tasks:
        return
    table = Table("task", "before", "", "after", "", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for task in tasks:
        cells = [*_side(task.get("before")), *_side(task.get("after"))]
        table.add_row(str(task.get("path")), *cells)
    out.print(table)
    for task in tasks:
        lines = _details(task)
        if lines:
            out.print(f"\n{task.get('path')}", style="bold", markup=False)
            for line in lines:
                out.print(line, soft_wrap=True)


def _side(side: dict[str, Any] | None) -> "tuple[Text, Text]":
    from rich.text import Text

    if side is None:
        return Text("—", "dim"), Text("")
    state = "CACHED" if side.get("cached") else str(side.get("state", ""))
    attempts = int(side.get("attempts", 0))
    took = short(side.get("seconds")) + (f", {attempts} attempts" if attempts > 1 else "")
    return Text(state, STYLES.get(state, "")), Text(took)


def _details(task: dict[str, Any]) -> "list[Text]":
    from rich.text import Text

    lines = [_pair(pair, "input") for pair in task.get("inputs", [])]
    lines += [_pair(_by_digest(pair), "input") for pair in task.get("input_artifacts", [])]
    lines += [_pair(pair, "output") for pair in task.get("outputs", [])]
    lines += [_pair(_by_digest(pair), "output") for pair in task.get("output_artifacts", [])]
    lines += [_pair(pair, "metric" if "delta" in pair else "metadata") for pair in task.get("metadata", [])]
    for mark, side in (("-", task.get("before") or {}), ("+", task.get("after") or {})):
        if side.get("error") and not side.get("cached"):
            lines.append(Text(f"  {mark} {side['error']}", "red"))
    return lines


def _by_digest(pair: dict[str, Any]) -> dict[str, Any]:
    """Gives artifacts by the beginning of the hash of their content, or where they are."""

    def named(side: dict[str, Any]) -> str:
        digest = str(side.get("digest", ""))
        return f"sha256:{digest[:12]}" if digest else str(side.get("uri", ""))

    return {key: named(value) if key in {"before", "after"} else value for key, value in pair.items()}
