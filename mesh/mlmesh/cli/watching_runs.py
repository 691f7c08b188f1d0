"""Runs, shown: as they are now, or until they end."""

from typing import TYPE_CHECKING, Any

import typer

from mlmesh.cli.finding_runs import brief, read_run
from mlmesh.cli.output import console, emit

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_TOLD_FAILURES = 3


def watch_run(mesh: "Ingress", run_id: str, as_json: bool) -> None:
    """Shows the tasks of a run until it ends, and how it ended.

    Raises:
        typer.Exit: With 1, it did not succeed; with 130, the user interrupted, and it goes on.
    """
    from mlmesh.cli.run_view import FINAL, run_lines, run_tree, state_of
    from mlmesh.cli.watching import PATIENCE_SECONDS, watch

    ended = watch(
        lambda: read_run(mesh, run_id, as_json, PATIENCE_SECONDS),
        lambda found: state_of(found) in FINAL,
        run_tree,
        run_lines,
        goes_on=f"the run goes on; watch it with: mlmesh runs {run_id} --watch",
        quiet=as_json,
    )
    show_run(ended, as_json)
    if state_of(ended) != "SUCCEEDED":
        raise typer.Exit(1)


def show_run(run: dict[str, Any], as_json: bool, *, fold: bool = True) -> None:
    """Shows a run as it is, wide loops folded or not; of one that failed also why, and where to look."""
    from mlmesh.cli.run_view import attempts_of, failures_of, run_tree, tasks_of
    from mlmesh.task_paths import paths_of

    if as_json:
        emit(brief(run))
        return
    out = console()
    out.print(run_tree(run, fold=fold))
    failed = failures_of(run)
    paths = paths_of(tasks_of(run))
    for task in failed[:_TOLD_FAILURES]:
        path = paths[str(task.get("task_id"))]
        out.print(f"{path}: {task.get('error', {}).get('message', '')}", style="red", markup=False, soft_wrap=True)
        if attempts_of(task):
            out.print(f"  its log: mlmesh logs {run['run_id']} {_quoted(path)}", markup=False, soft_wrap=True)
    if len(failed) > _TOLD_FAILURES:
        out.print(f"and {len(failed) - _TOLD_FAILURES} more tasks that failed")
    if failed:
        begun = [paths[str(task.get("task_id"))] for task in failed if attempts_of(task)]
        if begun:
            out.print(f"  debug it: mlmesh debug {run['run_id']} {_quoted(begun[0])}", markup=False, soft_wrap=True)
        out.print(f"  go on from there: mlmesh retry {run['run_id']}", markup=False, soft_wrap=True)
    elif run.get("error", {}).get("message"):
        out.print(run["error"]["message"], style="red", markup=False, soft_wrap=True)


def _quoted(path: str) -> str:
    """Quotes a path for a shell: brackets are wildcards there."""
    import shlex

    return shlex.quote(path)
