"""`mlmesh rerun`: a new run that takes over what an earlier one has done."""

from typing import Annotated, Any

import typer

from mlmesh.cli.completion import complete_tasks
from mlmesh.cli.connection import connected
from mlmesh.cli.finding_runs import analysis_path, read_run, run_path, whole_id
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit
from mlmesh.cli.runs import Param, ParamsFile, RunId, Watch

_SHOWN = 20


def rerun(
    run_id: RunId,
    from_tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="TASK",
            help="Run this task anew, and all that follow; may be repeated (without it: what did not succeed)",
            autocompletion=complete_tasks,
        ),
    ] = None,
    param: Param = None,
    params_file: ParamsFile = "",
    file: Annotated[
        str,
        typer.Option("--file", metavar="FILE|MODULE:FUNC", help="Another version of the pipeline; what differs runs"),
    ] = "",
    pipeline: Annotated[str, typer.Option(help="Which one, where a Python file has several pipelines")] = "",
    name: Annotated[str, typer.Option(help="Of the new run (that of the earlier one)")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run anew")] = False,
    watch: Watch = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline again from any task; the tasks before it keep the outputs that they had."""
    from mlmesh.pipelines import load_pipeline, parse_parameters, read_parameters

    with connected(ingress, data_dir, as_json=as_json) as mesh:
        run_id = whole_id(mesh, run_id, as_json)
        spec = load_pipeline(file, pipeline) if file else None
        body: dict[str, Any] = {"from_tasks": from_tasks or [], "display_name": name, "validate_only": dry_run}
        if spec is not None:
            body["pipeline_spec"] = spec
        if param or params_file:
            inputs = spec or _pipeline_of(mesh, read_run(mesh, run_id, as_json))
            given = read_parameters(params_file) if params_file else None
            body["parameters"] = parse_parameters(inputs, param or (), given, whole=False)
        answer = mesh.send("POST", analysis_path(run_id, "rerun"), body)
        if not as_json:
            _show(answer, dry_run)
        if dry_run or (as_json and not watch):
            if as_json:
                emit(answer)
            return
        from mlmesh.cli.runs import announce

        announce(mesh, mesh.get(run_path(answer["run_id"])), "created", watch, as_json)


def _pipeline_of(mesh: Any, run: dict[str, Any]) -> dict[str, Any]:
    """Gives the pipeline of a run; that of a version is the version's."""
    if run.get("pipeline_spec"):
        return dict(run["pipeline_spec"])
    reference = run.get("pipeline_version_reference", {})
    path = f"/apis/v2beta1/pipelines/{reference.get('pipeline_id')}/versions/{reference.get('pipeline_version_id')}"
    return dict(mesh.get(path)["pipeline_spec"])


def _show(answer: dict[str, Any], dry_run: bool) -> None:
    """Says what is taken over and what runs anew, and why."""
    out = console(stderr=not dry_run)
    reused, anew = answer.get("reused", []), answer.get("anew", [])
    more = f" and {len(reused) - _SHOWN} more" if len(reused) > _SHOWN else ""
    out.print(f"taken over: {', '.join(reused[:_SHOWN]) or 'nothing'}{more}", markup=False, soft_wrap=True)
    out.print("runs anew:")
    for each in anew[:_SHOWN]:
        out.print(f"  {each['path']}: {each['reason']}", markup=False, soft_wrap=True)
    if len(anew) > _SHOWN:
        out.print(f"  and {len(anew) - _SHOWN} more")
