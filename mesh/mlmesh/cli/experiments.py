"""The command for Katib experiments: tune."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json, Namespace
from mlmesh.cli.output import console, emit, fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress
    from mlmesh.cli.experiment_view import Search


def tune(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A Katib Experiment (YAML, JSON; - for standard input)")
    ] = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show the trials until the search ends; exit code 1 if it fails")
    ] = False,
    experiment: Annotated[str, typer.Option(help="Show (or watch) this one, that was made before, instead")] = "",
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Search for the best parameters: run a Katib Experiment. Without FILE, list experiments."""
    from mlmesh.documents import namespace_of, read_manifest

    if file and experiment:
        fail("give one of FILE and --experiment NAME", as_json=as_json, code=2)
    if watch and not (file or experiment):
        fail("say what to watch: FILE, or --experiment NAME; mlmesh tune lists them", as_json=as_json, code=2)
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        manifest = read_manifest(file, "Experiment") if file else {}
        where = namespace or (namespace_of(manifest) if manifest else "default")
        parent = f"/katib/v1/namespaces/{quote(where, safe='')}/experiments"
        if manifest:
            experiment = _create(mesh, parent, manifest, as_json)
        if not experiment:
            _list(mesh, parent, as_json)
            return
        path = f"{parent}/{quote(experiment, safe='')}"
        come_back = f"mlmesh tune --experiment {experiment} --watch" + (
            "" if where == "default" else f" --namespace {where}"
        )
        if watch:
            _watch(mesh, path, come_back, as_json)
        else:
            _show(_read(mesh, path), as_json, f"watch it with: {come_back}")


def _list(mesh: "Ingress", parent: str, as_json: bool) -> None:
    from mlmesh.cli.experiment_view import experiment_table

    found = list(mesh.pages(parent, "experiments"))
    if as_json:
        emit(found)
    elif found:
        console().print(experiment_table(found))
    else:
        console().print("no experiments yet; start one with: mlmesh tune FILE")


def _create(mesh: "Ingress", parent: str, manifest: dict[str, Any], as_json: bool) -> str:
    from mlmesh.cli.client import IngressError

    name = str(manifest["metadata"]["name"])
    try:
        mesh.send("POST", parent, {"manifest": manifest})
    except IngressError as error:
        if error.status == 409:
            fail(
                f"{error}; watch it with: mlmesh tune --experiment {name} --watch, or choose another metadata.name",
                as_json=as_json,
            )
        raise
    return name


def _read(mesh: "Ingress", path: str, patience_seconds: float = 0) -> "Search":
    from mlmesh.cli.experiment_view import Search

    trials = list(mesh.pages(f"{path}/trials", "trials", patience_seconds=patience_seconds))
    return Search(mesh.get(path, patience_seconds=patience_seconds), trials)


def _watch(mesh: "Ingress", path: str, come_back: str, as_json: bool) -> None:
    from mlmesh.cli.experiment_view import search_lines, search_picture
    from mlmesh.cli.watching import PATIENCE_SECONDS, watch

    def read() -> "Search":
        found = _read(mesh, path, PATIENCE_SECONDS)
        # The trials were read first: those of an experiment that has ended since are read once more.
        return _read(mesh, path, PATIENCE_SECONDS) if found.ended else found

    ended = watch(
        read,
        lambda found: found.ended,
        search_picture,
        search_lines,
        goes_on=f"the experiment goes on; watch it with: {come_back}",
        quiet=as_json,
    )
    _show(ended, as_json)
    if ended.state != "Succeeded":
        raise typer.Exit(1)


def _show(found: "Search", as_json: bool, next_step: str = "") -> None:
    from mlmesh.cli.experiment_view import search_picture

    if as_json:
        emit({**found.experiment, "trials": found.trials})
        return
    console().print(search_picture(found))
    if next_step and not found.ended:
        console().print(next_step, soft_wrap=True)
