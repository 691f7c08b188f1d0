"""What shells complete: runs, tasks, experiments, trials, models; asked of the mesh. No answer, nothing completed."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_RUNS = 30
_EXPERIMENTS = 100
_MODELS = 100
_TRIALS = 1000


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


def complete_experiments(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Gives the newest experiments of the namespace that begin with what was typed, with their states."""
    from mlmesh.cli.finding_experiments import DEFAULT_NAMESPACE, experiments_path
    from mlmesh.cli.search_state import last_part, state_of

    path = experiments_path(ctx.params.get("namespace") or DEFAULT_NAMESPACE)
    try:
        with _mesh(ctx) as mesh:
            answer = mesh.get(path, page_size=_EXPERIMENTS)
    except Exception:  # a shell that completes has no use for an error
        return []
    found = [(last_part(one), state_of(one.get("status", {}))) for one in answer.get("experiments", [])]
    return [one for one in found if one[0].startswith(incomplete)]


def complete_models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Gives the models of the namespace that begin with what was typed."""
    from mlmesh.cli.finding_models import DEFAULT_NAMESPACE, models_path
    from mlmesh.cli.search_state import last_part

    try:
        with _mesh(ctx) as mesh:
            answer = mesh.get(models_path(ctx.params.get("namespace") or DEFAULT_NAMESPACE), page_size=_MODELS)
    except Exception:  # a shell that completes has no use for an error
        return []
    names = [last_part(one) for one in answer.get("inference_services", [])]
    return [name for name in names if name.startswith(incomplete)]


def complete_revisions(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Gives the newest revisions of the model that was named before, with their states."""
    from mlmesh.cli.finding_models import Model
    from mlmesh.cli.search_state import last_part

    named = ctx.params.get("model")
    if not named:
        return []
    try:
        with _mesh(ctx) as mesh:
            answer = mesh.get(Model.named(str(named), ctx.params.get("namespace") or "").revisions, page_size=_MODELS)
    except Exception:  # as above
        return []
    found = [(last_part(one), one.get("status", {}).get("state", "").lower()) for one in answer.get("revisions", [])]
    return [one for one in found if one[0].startswith(incomplete)]


def complete_trials(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Gives the trials of the experiment that was named before, with their states."""
    from mlmesh.cli.finding_experiments import BEST, DEFAULT_NAMESPACE, Address
    from mlmesh.cli.search_state import last_part, state_of

    named = ctx.params.get("experiment")
    if not named:
        return []
    address = Address(ctx.params.get("namespace") or DEFAULT_NAMESPACE, str(named))
    try:
        with _mesh(ctx) as mesh:
            answer = mesh.get(f"{address.path}/trials", page_size=_TRIALS)
    except Exception:  # as above
        return []
    found = [(last_part(one), state_of(one)) for one in answer.get("trials", [])]
    return [one for one in [*found, (BEST, "the best so far")] if one[0].startswith(incomplete)]
