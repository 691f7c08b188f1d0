"""`mlmesh cache`: why a task was answered from the cache, or why it was not."""

import json
from typing import Annotated, Any

import typer

from mlmesh.cli.completion import complete_runs, complete_tasks
from mlmesh.cli.connection import connected
from mlmesh.cli.finding_runs import LATEST, analysis_path, whole_id
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit

group = typer.Typer(
    help="Ask why tasks were, or were not, answered from the cache.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_LONG = 100


@group.callback()
def _group() -> None:
    """Makes this a group, although it has one command."""


@group.command("explain")
def explain(
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID|TASK",
            help="A run, by the beginning of its id; or the task at once, of the newest run",
            autocompletion=complete_runs,
        ),
    ],
    task: Annotated[
        str,
        typer.Argument(
            help="The task, by name or path (for-loop-2[3]/train)", metavar="TASK", autocompletion=complete_tasks
        ),
    ] = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Say why a task was not answered from the cache: what differs from the nearest earlier execution."""
    if not task:
        run_id, task = LATEST, run_id
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        run_id = whole_id(mesh, run_id, as_json)
        found = mesh.get(analysis_path(run_id, "explainCache"), task=task)
    if as_json:
        emit(found)
        return
    _show(run_id, found)


def _show(run_id: str, found: dict[str, Any]) -> None:
    out = console()
    verdict = str(found.get("verdict", "")).removeprefix("VERDICT_")
    style = {"HIT": "cyan", "REUSED": "cyan"}.get(verdict, "yellow")
    out.print(f"[bold]{found.get('task_path', '')}[/] [{style}]{verdict}[/]", soft_wrap=True)
    out.print(found.get("message", ""), markup=False, soft_wrap=True)
    earlier = str(found.get("earlier_run", "")).removeprefix("runs/")
    if earlier and found.get("differences"):
        out.print(f"compared with {found.get('earlier_task_path')} of run {earlier}", style="dim", markup=False)
    for each in found.get("differences", []):
        show_difference(each)
    if found.get("cache_key"):
        out.print(f"cache key: {found['cache_key']}", style="dim", markup=False)
    if found.get("fingerprint"):
        out.print(f"fingerprint: {found['fingerprint']}", style="dim", markup=False)
    if earlier and earlier != run_id and verdict == "CHANGED":
        out.print(f"more: mlmesh diff {earlier} {run_id}", style="dim", markup=False)


def show_difference(each: dict[str, Any]) -> None:
    """Prints a difference: what it was and is, or a diff in colours."""
    from rich.text import Text

    out = console()
    kind = str(each.get("kind", "")).removeprefix("KIND_").lower()
    line = Text.assemble("  ", (kind, "bold"), f" {each.get('name', '')}")
    if "before" in each or "after" in each:
        line.append(": ")
        line.append(shown(each.get("before"), "before" in each), "red")
        line.append(" → ")
        line.append(shown(each.get("after"), "after" in each), "green")
    out.print(line, soft_wrap=True)
    for text in str(each.get("text", "")).splitlines():
        style = {"+": "green", "-": "red", "@": "cyan"}.get(text[:1], "dim")
        out.print(Text(f"    {text}", style), soft_wrap=True)


def shown(value: Any, there: bool = True) -> str:
    """Gives a value in few characters."""
    if not there:
        return "(none)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
