"""`mlmesh logs`: of a service, of a run, of a task."""

import difflib
import re
from pathlib import Path
from typing import Annotated

import typer

from mlmesh.cli.completion import complete_runs, complete_tasks
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import fail
from mlmesh.running import resolve_data_dir

_RUN = re.compile(r"latest|[0-9a-f][0-9a-f-]{3,35}")
_SERVICE_LINES = 100


def complete_targets(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Gives services and runs."""
    from mlmesh.supervisor.layout import Layout

    layout = Layout(resolve_data_dir(ctx.params.get("data_dir")))
    services = [(path.stem, "a process of the mesh") for path in sorted(layout.logs.glob("*.log"))]
    return [one for one in services if one[0].startswith(incomplete)] + complete_runs(ctx, incomplete)


def logs(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE|RUN_ID",
            help="A service, ingress, access (what was asked of the ingress) or supervisor; or a run",
            autocompletion=complete_targets,
        ),
    ],
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="Of a run: a task, by name or path (for-loop-2[3]/train), or a loop with all in it; else all tasks",
            autocompletion=complete_tasks,
        ),
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now on; of a run, until it ends")
    ] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, help="Of a service: how many of the last lines (100)")
    ] = None,
    attempt: Annotated[
        int, typer.Option("--attempt", metavar="N", min=0, help="Of a task: which attempt (the latest)")
    ] = 0,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show the log of a service, or what the tasks of a run have printed."""
    from mlmesh.supervisor.layout import Layout

    layout = Layout(resolve_data_dir(data_dir))
    known = sorted(path.stem for path in layout.logs.glob("*.log"))
    if not task and not attempt and target in known:
        _of_service(layout.log(target), _SERVICE_LINES if lines is None else lines, follow, as_json)
        return
    if not _RUN.fullmatch(target):
        near = difflib.get_close_matches(target, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        there = f"{hint}there are: {', '.join(known)}" if known else "no mesh has run there; start one with: mlmesh up"
        fail(
            f"there is no log of {target!r} in {layout.logs}; {there}; nor is it the id of a run",
            as_json=as_json,
        )
    if lines is not None:
        fail("--lines is for the log of a service", as_json=as_json, code=2)
    from mlmesh.cli.connection import connected
    from mlmesh.cli.finding_runs import whole_id
    from mlmesh.cli.task_logs import print_logs

    with connected(ingress, data_dir, as_json=as_json) as mesh:
        run_id = whole_id(mesh, target, as_json)
        print_logs(mesh, run_id, task, number=attempt, follow=follow, as_json=as_json)


def _of_service(path: Path, lines: int, follow: bool, as_json: bool) -> None:
    import sys

    from mlmesh import logs as reader

    for line in reader.last_lines(path, lines):
        sys.stdout.write((line if as_json else reader.readable(line)) + "\n")
    if follow:
        for line in reader.follow(path):
            sys.stdout.write((line if as_json else reader.readable(line)) + "\n")
            sys.stdout.flush()
