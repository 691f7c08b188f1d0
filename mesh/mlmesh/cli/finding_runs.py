"""Runs, found by what the user calls them."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlmesh.cli.output import fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

API = "/apis/v2beta1"
OURS = "/pipeline/v1"
LATEST = "latest"
"""Stands for the newest run."""
_ID_LENGTH = 36


def run_path(run_id: str) -> str:
    """Gives the path of a run at the ingress."""
    return f"{API}/runs/{quote(run_id, safe='')}"


def analysis_path(run_id: str, verb: str) -> str:
    """Gives the path of a question about a run at the ingress."""
    return f"{OURS}/runs/{quote(run_id, safe='')}:{verb}"


def whole_id(mesh: "Ingress", run_id: str, as_json: bool) -> str:
    """Completes an id of which the user gave the beginning, as other commands show it; `latest` is the newest run."""
    from itertools import islice

    if len(run_id) >= _ID_LENGTH:
        return run_id
    newest = islice(mesh.pages(f"{API}/runs", "runs", sort_by="created_at desc", page_size=200), 1000)
    if run_id == LATEST:
        first = next(newest, None)
        if first is None:
            fail("there are no runs yet; start one with: mlmesh run FILE", as_json=as_json)
        return str(first["run_id"])
    found = [str(run["run_id"]) for run in newest if str(run["run_id"]).startswith(run_id)]
    if len(found) > 1:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        fail(f"several runs begin with {run_id}: {', '.join(found[:5])}{more}; give more of it", as_json=as_json)
    if not found:
        fail(f"there is no run {run_id!r}; see which there are with: mlmesh runs", as_json=as_json)
    return found[0]


def read_run(mesh: "Ingress", run_id: str, as_json: bool, patience_seconds: float = 0) -> dict[str, Any]:
    """Reads a run; one that is not there ends the command."""
    from mlmesh.cli.client import IngressError

    try:
        found: dict[str, Any] = mesh.get(run_path(run_id), patience_seconds=patience_seconds)
    except IngressError as error:
        if error.status == 404:
            fail(f"{error}; see which there are with: mlmesh runs", as_json=as_json)
        raise
    return found


def task_name(mesh: "Ingress", run: dict[str, Any], name: str) -> str:
    """Gives a task's name as `mlmesh.task_paths` finds it: that of the service (`exit-handler-1/train`), where the user
    gave that and the task is shown by another, becomes its id."""
    from mlmesh.cli.client import IngressError
    from mlmesh.cli.run_view import tasks_of
    from mlmesh.documents import DocumentError
    from mlmesh.task_paths import find_tasks

    try:
        find_tasks(tasks_of(run), name)
    except DocumentError:
        try:
            return str(mesh.get(analysis_path(str(run["run_id"]), "explainCache"), task=name)["task_id"])
        except IngressError:
            return name
    return name


def brief(run: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the pipeline: it is long, and the user has it."""
    return {key: value for key, value in run.items() if key != "pipeline_spec"}
