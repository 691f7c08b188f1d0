"""What shells complete: runs and tasks, asked of the mesh. Where it does not answer, nothing is completed."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_RUNS = 30


@contextlib.contextmanager
def _mesh(context: typer.Context) -> Iterator["Ingress"]:
    import os

    from mlmesh.cli.client import Ingress, find_ingress
    from mlmesh.running import resolve_data_dir

    given = context.params.get("ingress") or os.environ.get("MLMESH_INGRESS")
    with Ingress(find_ingress(given, resolve_data_dir(context.params.get("data_dir")))) as mesh:
        yield mesh


def complete_runs(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Gives the newest runs that begin with what was typed, with their names."""
    try:
        with _mesh(ctx) as mesh:
            answer = mesh.get("/apis/v2beta1/runs", sort_by="created_at desc", page_size=_RUNS)
    except Exception:  # a shell that completes has no use for an error
        return []
    found = [(str(run["run_id"]), f"{run.get('display_name', '')} {run.get('state', '')}") for run in answer["runs"]]
    return [one for one in [*found, ("latest", "the newest run")] if one[0].startswith(incomplete)]


def complete_tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Gives the tasks of the run that was named before."""
    from mlmesh.cli.finding_runs import read_run, whole_id
    from mlmesh.cli.run_view import tasks_of
    from mlmesh.task_paths import paths_of

    params: dict[str, Any] = ctx.params
    named = params.get("run_id") or params.get("target")
    if not named:
        return []
    try:
        with _mesh(ctx) as mesh, contextlib.redirect_stderr(None):
            run = read_run(mesh, whole_id(mesh, str(named), False), False)
    except (Exception, typer.Exit):
        return []
    return sorted(path for path in paths_of(tasks_of(run)).values() if path.startswith(incomplete))
