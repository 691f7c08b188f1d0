"""Commands that change experiments: edit, pause, resume, delete."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.experiments import ExperimentName
from mlmesh.cli.finding_experiments import DEFAULT_NAMESPACE, Address, explained
from mlmesh.cli.options import DataDir, IngressUrl, Json, Namespace
from mlmesh.cli.output import console, emit, fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_NO_GOAL = "none"
_GOAL = "manifest.spec.objective.goal"


def edit(
    experiment: ExperimentName,
    max_trials: Annotated[
        int | None, typer.Option(min=1, help="maxTrialCount; raised, an experiment that had reached it goes on")
    ] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="parallelTrialCount")] = None,
    max_failed: Annotated[int | None, typer.Option(min=0, help="maxFailedTrialCount")] = None,
    goal: Annotated[str, typer.Option(help="Goal of the (first) objective: a number; none: there is no goal")] = "",
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Change the budget or the goal of an experiment, while it runs too."""
    counts = {"maxTrialCount": max_trials, "parallelTrialCount": parallel, "maxFailedTrialCount": max_failed}
    spec: dict[str, Any] = {name: count for name, count in counts.items() if count is not None}
    if not spec and not goal:
        fail("say what to change: --max-trials, --parallel, --max-failed, --goal", as_json=as_json, code=2)
    if goal == _NO_GOAL and spec:
        fail("--goal none goes alone; change the counts with a second call", as_json=as_json, code=2)
    query = ""
    if goal == _NO_GOAL:
        # What a mask names and the manifest has not is removed.
        query = f"?update_mask={_GOAL}"
    elif goal:
        spec["objective"] = {"goal": _number(goal, as_json)}
    address = Address(namespace or DEFAULT_NAMESPACE, experiment)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(address, as_json=as_json):
        changed = mesh.send("PATCH", f"{address.path}{query}", {"manifest": {"spec": spec}})
    _tell(changed, f"changed {experiment}", as_json)


def pause(
    experiment: ExperimentName,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Start no more trials of an experiment; those that run go on to their ends."""
    address = Address(namespace or DEFAULT_NAMESPACE, experiment)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(address, as_json=as_json):
        changed = mesh.send("POST", f"{address.path}:pause", {})
    _tell(changed, f"paused {experiment}; go on with: {address.command('resume')}", as_json)


def resume(
    experiment: ExperimentName,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Go on with an experiment that was paused."""
    address = Address(namespace or DEFAULT_NAMESPACE, experiment)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(address, as_json=as_json):
        changed = mesh.send("POST", f"{address.path}:resume", {})
    _tell(changed, f"resumed {experiment}; watch it with: {address.command('watch')}", as_json)


def delete(
    experiment: ExperimentName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Delete an experiment with its trials, their logs and files; those that run are killed."""
    address = Address(namespace or DEFAULT_NAMESPACE, experiment)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(address, as_json=as_json):
        if not yes:
            _ask(mesh, address, as_json)
        mesh.send("DELETE", address.path, None)
    if as_json:
        emit({"deleted": experiment})
    else:
        console().print(f"deleted {experiment}", markup=False, soft_wrap=True)


def _ask(mesh: "Ingress", address: Address, as_json: bool) -> None:
    from mlmesh.cli.output import printable
    from mlmesh.cli.search_state import Search

    search = Search(mesh.get(address.path))
    count, running = search.status.get("trials", 0), search.status.get("trials_running", 0)
    what = f"experiment {address.name} with {count} trials" + (f", {running} of which run now" if running else "")
    if not sys.stdin.isatty() or not typer.confirm(printable(f"delete {what}?"), err=True):
        fail("nothing was deleted; to do it without being asked: --yes", as_json=as_json)


def _tell(changed: dict[str, Any], done: str, as_json: bool) -> None:
    from mlmesh.cli.output import printable

    if as_json:
        emit(changed)
    else:
        console().print(printable(done), markup=False, soft_wrap=True)


def _number(text: str, as_json: bool) -> float:
    from mlmesh.cli.search_state import as_number

    found = as_number(text)
    if found is None:
        fail(f"--goal must be a number or none, not {text!r}", as_json=as_json, code=2)
    return found
