"""`mlmesh debug`: a task of a run, called again in the foreground under pdb."""

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlmesh.cli.completion import complete_runs, complete_tasks
from mlmesh.cli.connection import connected
from mlmesh.cli.finding_runs import analysis_path, read_run, task_name, whole_id
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_POLL_SECONDS = 0.25


def debug(
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID", help="Id of the run; its beginning is enough, or: latest", autocompletion=complete_runs
        ),
    ],
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="The task, by name or path (for-loop-2[3]/train); of several, the first that failed",
            autocompletion=complete_tasks,
        ),
    ],
    at_start: Annotated[bool, typer.Option("--break", help="Stop at its first line, not only where it fails")] = False,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder for its outputs; it must be empty (a new one for temporary files)")
    ] = None,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Call a task again in this terminal under pdb, with the inputs that it had; the run is not changed."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        run_id = whole_id(mesh, run_id, as_json)
        run = read_run(mesh, run_id, as_json)
        call = mesh.get(analysis_path(run_id, "describeTask"), task=_choose(run, task_name(mesh, run, task)))
        _debug(mesh, run, call, scratch, at_start=at_start, as_json=as_json)


def debug_when_ready(mesh: "Ingress", run_id: str, task: str, *, at_start: bool, as_json: bool) -> None:
    """Waits until a task of a new run has ended, and debugs it; with `at_start`, until it has begun.

    Raises:
        DocumentError: The run has no such task.
    """
    from mlmesh.cli.run_view import FINAL, state_of, tasks_of
    from mlmesh.cli.watching import PATIENCE_SECONDS
    from mlmesh.documents import DocumentError
    from mlmesh.task_paths import find_tasks

    sys.stderr.write(f"mlmesh: run {run_id}; waiting for {task}\n")
    while True:
        run = read_run(mesh, run_id, as_json, PATIENCE_SECONDS)
        with contextlib.suppress(DocumentError):
            states = {str(one.get("state")) for one in find_tasks(tasks_of(run), task)}
            if "FAILED" in states or states <= FINAL or (at_start and "RUNNING" in states):
                break
        if state_of(run) in FINAL:
            break
        try:
            time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            sys.stderr.write(f"\nmlmesh: the run goes on; debug it later with: mlmesh debug {run_id} {task}\n")
            raise typer.Exit(130) from None
    call = mesh.get(analysis_path(run_id, "describeTask"), task=_choose(run, task))
    _debug(mesh, run, call, None, at_start=at_start, as_json=as_json)


def _choose(run: dict[str, Any], name: str) -> str:
    """Gives the id of the task that was named; of several the first that failed."""
    from mlmesh.cli.run_view import state_of, tasks_of
    from mlmesh.documents import DocumentError
    from mlmesh.task_paths import find_tasks, paths_of

    found = find_tasks(tasks_of(run), name)
    failed = [task for task in found if state_of(task) == "FAILED"]
    if len(found) > 1 and not failed:
        paths = paths_of(tasks_of(run))
        names = ", ".join(paths[str(task["task_id"])] for task in found[:10])
        raise DocumentError(f"{name!r} fits several tasks and none of them failed; give the path of one: {names}")
    return str((failed or found)[0]["task_id"])


def _shown_state(run: dict[str, Any], call: dict[str, Any]) -> str:
    """Gives the state of the task as `mlmesh runs` shows it."""
    from mlmesh.cli.run_view import state_of, tasks_of

    found = [state_of(task) for task in tasks_of(run) if task.get("task_id") == call.get("task_id")]
    return found[0] if found else str(call.get("state"))


def _debug(
    mesh: "Ingress", run: dict[str, Any], call: dict[str, Any], scratch: Path | None, *, at_start: bool, as_json: bool
) -> None:
    import tempfile

    from mlmesh.cli.fetching_inputs import with_local_inputs
    from mlmesh.debugging import NotDebuggable
    from mlmesh.debugging import debug as call_again

    run_id, path = str(run["run_id"]), str(call.get("task_path"))
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
        if any(scratch.iterdir()):
            fail(f"{scratch} is not empty; name another folder with --scratch", as_json=as_json)
    folder = (scratch or Path(tempfile.mkdtemp(prefix="mlmesh-debug-"))).absolute()
    out = console(stderr=True)

    def say(words: str) -> None:
        out.print(f"mlmesh: {words}", style="yellow", markup=False, soft_wrap=True)

    say(f"{path} of run {run_id} ({_shown_state(run, call)}), called here; its outputs go to {folder}")
    call = with_local_inputs(mesh, run, call, folder / "fetched", say)
    variables = {"MLMESH_INGRESS": mesh.url, "MLMESH_RUN_ID": run_id, "MLMESH_TASK_NAME": path.rpartition("/")[2]}
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = call_again(call, folder, at_start=at_start, environment=variables, say=say)
    except NotDebuggable as error:
        fail(str(error), as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise typer.Exit(130) from None
    if as_json:
        emit(
            {
                "run_id": run_id,
                "task": path,
                "state": result.state,
                "error": result.error,
                "parameters": result.parameters,
                "artifacts": result.artifacts,
                "scratch": str(folder),
            }
        )
    elif result.state == "SUCCEEDED":
        hint = "" if at_start else "; stop at its first line with --break"
        say(f"{path} succeeded here{hint}")
        for name, value in result.parameters.items():
            out.print(f"  {name} = {value!r}", markup=False, soft_wrap=True)
        for name, place in result.artifacts.items():
            out.print(f"  {name}: {place}", markup=False, soft_wrap=True)
    raise typer.Exit(1 if result.state == "FAILED" else 0)
