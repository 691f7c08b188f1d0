"""Commands for pipeline runs: run, runs."""

import datetime
import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

_API = "/apis/v2beta1"
_ID_LENGTH = 36

Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Show the tasks until the run ends; exit code 1 if it fails")
]


RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of the run; its beginning is enough")]


def run(
    file: Annotated[
        str, typer.Argument(help="A compiled pipeline (YAML, JSON; - for standard input) or a Python file")
    ],
    param: Annotated[list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE; may be repeated")] = None,
    watch: Watch = False,
    name: Annotated[str, typer.Option(help="Of the run (the pipeline's, and the time)")] = "",
    experiment: Annotated[str, typer.Option(help="Put the run in this experiment; it is made if need be")] = "",
    pipeline: Annotated[str, typer.Option(help="Which one, where a Python file has several pipelines")] = "",
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Take results of earlier runs where it can")] = True,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline."""
    from mlmesh.pipelines import ir_of, load_pipeline, parse_parameters, without_cache

    with connected(ingress, data_dir, as_json=as_json) as mesh:
        spec = load_pipeline(file, pipeline)
        parameters = parse_parameters(spec, param or ())
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
        made = mesh.send("POST", f"{_API}/runs", body)
        run_id = str(made["run_id"])
        if watch:
            _watch(mesh, run_id, as_json)
        elif as_json:
            emit(_brief(made))
        else:
            console().print(f"run [bold]{run_id}[/] created; watch it with: mlmesh runs {run_id} --watch")


def runs(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN_ID", help="Show this run with its tasks; the beginning of the id is enough")
    ] = "",
    watch: Watch = False,
    log: Annotated[str, typer.Option("--log", metavar="TASK", help="Print the log of this task")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="With --log: go on until the task ends")] = False,
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
        run_id = _whole_id(mesh, run_id, as_json) if run_id else ""
        if log:
            _print_log(mesh, run_id, log, follow, as_json)
        elif watch:
            _watch(mesh, run_id, as_json)
        elif run_id:
            _show(mesh, _read(mesh, run_id, as_json), as_json)
        else:
            size = min(limit, 200)
            listed = mesh.pages(f"{_API}/runs", "runs", sort_by="created_at desc", page_size=size)
            found = list(islice(listed, limit))
            if as_json:
                emit([_brief(each) for each in found])
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


def _act(verb: str, done: str, run_id: str, watch: bool, ingress: IngressUrl, data_dir: DataDir, as_json: bool) -> None:
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        run_id = _whole_id(mesh, run_id, as_json)
        mesh.send("POST", f"{_API}/runs/{quote(run_id, safe='')}:{verb}", {})
        if watch:
            _watch(mesh, run_id, as_json)
        elif as_json:
            emit(_brief(_read(mesh, run_id, as_json)))
        else:
            console().print(f"run {run_id} {done}; watch it with: mlmesh runs {run_id} --watch", markup=False)


def _brief(run: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the pipeline: it is long, and the user has it."""
    return {key: value for key, value in run.items() if key != "pipeline_spec"}


def _whole_id(mesh: "Ingress", run_id: str, as_json: bool) -> str:
    """Completes an id of which the user gave the beginning, as other commands show it."""
    from itertools import islice

    if len(run_id) >= _ID_LENGTH:
        return run_id
    newest = islice(mesh.pages(f"{_API}/runs", "runs", sort_by="created_at desc", page_size=200), 1000)
    found = [str(run["run_id"]) for run in newest if str(run["run_id"]).startswith(run_id)]
    if len(found) > 1:
        fail(f"several runs begin with {run_id}: {', '.join(found[:5])}", as_json=as_json)
    return found[0] if found else run_id


def _read(mesh: "Ingress", run_id: str, as_json: bool, patience_seconds: float = 0) -> dict[str, Any]:
    from mlmesh.cli.client import IngressError

    try:
        found: dict[str, Any] = mesh.get(f"{_API}/runs/{quote(run_id, safe='')}", patience_seconds=patience_seconds)
    except IngressError as error:
        if error.status == 404:
            fail(f"{error}; see which there are with: mlmesh runs", as_json=as_json)
        raise
    return found


def experiment_id_of(mesh: "Ingress", name: str) -> str:
    """Finds an experiment by its name, or makes it."""
    import json

    from mlmesh.cli.client import IngressError

    def find() -> list[Any]:
        same = {"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]}
        return list(mesh.pages(f"{_API}/experiments", "experiments", filter=json.dumps(same)))

    found = find()
    if not found:
        try:
            found = [mesh.send("POST", f"{_API}/experiments", {"display_name": name})]
        except IngressError as error:
            if error.status != 409:
                raise
            found = find()  # somebody else made it meanwhile
    return str(found[0]["experiment_id"])


def _watch(mesh: "Ingress", run_id: str, as_json: bool) -> None:
    from mlmesh.cli.run_view import FINAL, run_lines, run_tree, state_of
    from mlmesh.cli.watching import PATIENCE_SECONDS, watch

    ended = watch(
        lambda: _read(mesh, run_id, as_json, PATIENCE_SECONDS),
        lambda found: state_of(found) in FINAL,
        run_tree,
        run_lines,
        goes_on=f"the run goes on; watch it with: mlmesh runs {run_id} --watch",
        quiet=as_json,
    )
    _show(mesh, ended, as_json)
    if state_of(ended) != "SUCCEEDED":
        raise typer.Exit(1)


def _show(mesh: "Ingress", run: dict[str, Any], as_json: bool) -> None:
    from mlmesh.cli.run_view import run_tree, state_of, tasks_of

    if as_json:
        emit(_brief(run))
        return
    out = console()
    out.print(run_tree(run))
    for task in tasks_of(run):
        executor = task.get("executor_detail", {})
        if state_of(task) == "FAILED" and (executor.get("main_job") or executor.get("failed_main_jobs")):
            out.print(f"see why with: mlmesh runs {run['run_id']} --log {task['display_name']}", soft_wrap=True)
            break
    else:
        if run.get("error", {}).get("message"):
            out.print(run["error"]["message"], style="red", markup=False, soft_wrap=True)


def _print_log(mesh: "Ingress", run_id: str, name: str, follow: bool, as_json: bool) -> None:
    from mlmesh.cli.run_view import tasks_of

    tasks = tasks_of(_read(mesh, run_id, as_json))
    chosen = [task for task in tasks if name in {task.get("display_name"), task.get("task_id")}]
    if not chosen:
        names = sorted({str(task.get("display_name")) for task in tasks})
        fail(f"run {run_id} has no task {name!r}; there are: {', '.join(names) or 'none yet'}", as_json=as_json)
    if len(chosen) > 1:
        ids = "".join(f"\n  {task.get('task_id')}  {task.get('state')}" for task in chosen)
        fail(f"run {run_id} has several tasks {name!r}; give the id of one:{ids}", as_json=as_json)
    path = f"{_API}/runs/{quote(run_id, safe='')}/tasks/{chosen[0]['task_id']}/log"
    lines = mesh.lines(path, **({"follow": "true"} if follow else {}))
    if as_json:
        emit({"run_id": run_id, "task_id": chosen[0]["task_id"], "log": list(lines)})
        return
    try:
        for line in lines:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        if follow:
            sys.stderr.write("\nmlmesh: the run goes on\n")
        raise typer.Exit(130) from None
