"""Commands for pipeline runs: run, runs, retry, terminate."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlmesh.cli.completion import complete_runs, complete_tasks
from mlmesh.cli.connection import connected
from mlmesh.cli.finding_runs import API, brief, read_run, run_path, whole_id
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail
from mlmesh.cli.watching_runs import show_run, watch_run

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Show the tasks until the run ends; exit code 1 if it fails")
]
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN_ID", help="Id of the run; its beginning is enough, or: latest", autocompletion=complete_runs
    ),
]
Param = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="NAME=VALUE, the value as the parameter's type has it; may be repeated"),
]
ParamsFile = Annotated[
    str, typer.Option("--params-file", metavar="FILE", help="Parameters as YAML or JSON; --param goes before it")
]


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|MODULE:FUNC",
            help="A compiled pipeline (YAML, JSON; - for standard input), a Python file, or FILE.py:FUNC, MODULE:FUNC",
        ),
    ],
    param: Param = None,
    params_file: ParamsFile = "",
    watch: Watch = False,
    name: Annotated[str, typer.Option(help="Of the run (the pipeline's, and the time)")] = "",
    experiment: Annotated[str, typer.Option(help="Put the run in this experiment; it is made if need be")] = "",
    pipeline: Annotated[str, typer.Option(help="Which one, where a Python file has several pipelines")] = "",
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Take results of earlier runs where it can")] = True,
    pdb: Annotated[
        str, typer.Option("--pdb", metavar="TASK", help="Run the pipeline, then this task here, under the debugger")
    ] = "",
    at_start: Annotated[
        bool, typer.Option("--break", help="With --pdb: stop at the first line, not only where it fails")
    ] = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline."""
    from mlmesh.pipelines import ir_of, load_pipeline, parse_parameters, read_parameters, without_cache

    if at_start and not pdb:
        fail("--break goes with --pdb TASK", as_json=as_json, code=2)
    if pdb and source == "-":
        fail("standard input is the debugger's: give the pipeline as a file", as_json=as_json, code=2)
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        spec = load_pipeline(source, pipeline)
        parameters = parse_parameters(spec, param or (), read_parameters(params_file) if params_file else None)
        if not cache:
            without_cache(spec)
        title = str(ir_of(spec).get("pipelineInfo", {}).get("name", "pipeline"))
        body = {
            "display_name": name or f"{title} {datetime.datetime.now():%Y-%m-%d %H-%M-%S}",
            "pipeline_spec": spec,
            "runtime_config": {"parameters": parameters},
        }
        if experiment:
            body["experiment_id"] = experiment_id_of(mesh, experiment)
        made = mesh.send("POST", f"{API}/runs", body)
        run_id = str(made["run_id"])
        if pdb:
            from mlmesh.cli.debugging_tasks import debug_when_ready

            debug_when_ready(mesh, run_id, pdb, at_start=at_start, as_json=as_json)
        else:
            announce(mesh, made, "created", watch, as_json)


def announce(mesh: "Ingress", run: dict[str, Any], what: str, watch: bool, as_json: bool) -> None:
    """Says what has become of a run, or watches it."""
    run_id = str(run["run_id"])
    if watch:
        watch_run(mesh, run_id, as_json)
    elif as_json:
        emit(brief(run))
    else:
        console().print(f"run [bold]{run_id}[/] {what}; watch it with: mlmesh runs {run_id} --watch", soft_wrap=True)


def runs(
    run_id: Annotated[
        str,
        typer.Argument(
            metavar="RUN_ID",
            help="Show this run with its tasks; the beginning of the id is enough, or: latest",
            autocompletion=complete_runs,
        ),
    ] = "",
    watch: Watch = False,
    log: Annotated[
        str,
        typer.Option("--log", metavar="TASK", help="Print its log (see mlmesh logs)", autocompletion=complete_tasks),
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="With --log: go on until the task ends")] = False,
    unfolded: Annotated[bool, typer.Option("--all", help="Show every task, those of wide loops, too")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest runs are listed")] = 20,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List runs, or show one with its tasks."""
    from itertools import islice

    from mlmesh.cli.run_view import run_table

    if (log or watch) and not run_id:
        fail("say which run: mlmesh runs RUN_ID; mlmesh runs lists them", as_json=as_json, code=2)
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        run_id = whole_id(mesh, run_id, as_json) if run_id else ""
        if log:
            from mlmesh.cli.task_logs import print_logs

            print_logs(mesh, run_id, log, follow=follow, as_json=as_json)
        elif watch:
            watch_run(mesh, run_id, as_json)
        elif run_id:
            show_run(read_run(mesh, run_id, as_json), as_json, fold=not unfolded)
        else:
            size = min(limit, 200)
            listed = mesh.pages(f"{API}/runs", "runs", sort_by="created_at desc", page_size=size)
            found = list(islice(listed, limit))
            if as_json:
                emit([brief(each) for each in found])
            elif found:
                console().print(run_table(found))
            else:
                console().print("no runs yet; start one with: mlmesh run FILE")


def retry(
    run_id: RunId,
    watch: Watch = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run again what did not succeed in a run that has failed."""
    _act("retry", "goes on", run_id, watch, ingress, data_dir, as_json)


def terminate(
    run_id: RunId,
    watch: Watch = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """End a run that is active."""
    _act("terminate", "is being terminated", run_id, watch, ingress, data_dir, as_json)


def _act(
    verb: str, done: str, run_id: str, watch: bool, ingress: str | None, data_dir: Path | None, as_json: bool
) -> None:
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        run_id = whole_id(mesh, run_id, as_json)
        mesh.send("POST", f"{run_path(run_id)}:{verb}", {})
        run = {"run_id": run_id} if watch or not as_json else read_run(mesh, run_id, as_json)
        announce(mesh, run, done, watch, as_json)


def experiment_id_of(mesh: "Ingress", name: str) -> str:
    """Finds an experiment by its name, or makes it."""
    import json

    from mlmesh.cli.client import IngressError

    def find() -> list[Any]:
        same = {"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]}
        return list(mesh.pages(f"{API}/experiments", "experiments", filter=json.dumps(same)))

    found = find()
    if not found:
        try:
            found = [mesh.send("POST", f"{API}/experiments", {"display_name": name})]
        except IngressError as error:
            if error.status != 409:
                raise
            found = find()  # somebody else made it meanwhile
    return str(found[0]["experiment_id"])
