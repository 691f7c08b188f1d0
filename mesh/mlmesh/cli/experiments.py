"""Commands for Katib experiments: run (which `mlmesh tune FILE` is), list, show, watch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlmesh.cli.completion import complete_experiments
from mlmesh.cli.connection import connected
from mlmesh.cli.finding_experiments import DEFAULT_NAMESPACE, Address, experiments_path, explained
from mlmesh.cli.options import DataDir, IngressUrl, Json, Namespace
from mlmesh.cli.output import console, emit, fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress
    from mlmesh.cli.search_state import Search

_REST = 4
_OTHER_LINES = 16
"""Lines of the picture that are no trials."""

ExperimentName = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Name of the experiment", autocompletion=complete_experiments)
]


def run(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A Katib Experiment (YAML, JSON; - for standard input)")
    ] = "",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show the trials until the search ends; exit code 1 if it fails")
    ] = False,
    experiment: Annotated[
        str,
        typer.Option(
            help="Show (or watch) this one, that was made before, instead", autocompletion=complete_experiments
        ),
    ] = "",
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run a Katib Experiment: the same as mlmesh tune FILE. Without FILE, list experiments."""
    from mlmesh.documents import namespace_of, read_manifest

    if file and experiment:
        fail("give one of FILE and --experiment NAME", as_json=as_json, code=2)
    if watch and not (file or experiment):
        fail(
            "say what to watch: FILE, or mlmesh tune watch EXPERIMENT; mlmesh tune lists them", as_json=as_json, code=2
        )
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        manifest = read_manifest(file, "Experiment") if file else {}
        where = namespace or (namespace_of(manifest) if manifest else DEFAULT_NAMESPACE)
        if manifest:
            experiment = _create(mesh, where, manifest, as_json)
        if not experiment:
            _list(mesh, where, as_json)
        elif watch:
            _watch(mesh, Address(where, experiment), as_json)
        else:
            _show_now(mesh, Address(where, experiment), as_json)


def list_experiments(
    namespace: Namespace = "", ingress: IngressUrl = None, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """List the experiments, newest first."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        _list(mesh, namespace or DEFAULT_NAMESPACE, as_json)


def show(
    experiment: ExperimentName,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show an experiment as it is now."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        _show_now(mesh, Address(namespace or DEFAULT_NAMESPACE, experiment), as_json)


def watch(
    experiment: ExperimentName,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show an experiment until it ends; exit code 1 if it fails."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        _watch(mesh, Address(namespace or DEFAULT_NAMESPACE, experiment), as_json)


def _list(mesh: "Ingress", namespace: str, as_json: bool) -> None:
    from mlmesh.cli.experiment_view import experiment_table

    found = list(mesh.pages(experiments_path(namespace), "experiments"))
    if as_json:
        emit(found)
    elif found:
        console().print(experiment_table(found))
    else:
        where = "" if namespace == DEFAULT_NAMESPACE else f" in namespace {namespace}"
        console().print(f"no experiments yet{where}; start one with: mlmesh tune FILE", markup=False, soft_wrap=True)


def _create(mesh: "Ingress", namespace: str, manifest: dict[str, Any], as_json: bool) -> str:
    from mlmesh.cli.client import IngressError

    name = str(manifest["metadata"]["name"])
    try:
        mesh.send("POST", experiments_path(namespace), {"manifest": manifest})
    except IngressError as error:
        if error.status == 409:
            watched = Address(namespace, name).command("watch")
            fail(f"{error}; watch it with: {watched}, or choose another metadata.name", as_json=as_json)
        if error.status == 400:
            fail(f"{error}; nothing was started: mend the manifest and try again", as_json=as_json)
        raise
    return name


def _show_now(mesh: "Ingress", address: Address, as_json: bool) -> None:
    from mlmesh.cli.reading_trials import SearchReader

    with explained(address, as_json=as_json):
        found = SearchReader(mesh, address.path, with_reports=not as_json).read()
    _print(found, as_json, f"watch it with: {address.command('watch')}")


def _watch(mesh: "Ingress", address: Address, as_json: bool) -> None:
    from mlmesh.cli.experiment_view import SHOWN, search_lines, search_picture
    from mlmesh.cli.reading_trials import SearchReader
    from mlmesh.cli.watching import PATIENCE_SECONDS, watch

    screen = console(stderr=True)
    live = screen.is_terminal and not as_json
    reader = SearchReader(mesh, address.path, with_reports=live, patience_seconds=PATIENCE_SECONDS)
    with explained(address, as_json=as_json):
        ended = watch(
            reader.read,
            lambda found: found.ended,
            lambda found: search_picture(found, max(2, min(SHOWN, (screen.height - _OTHER_LINES) // 2))),
            search_lines,
            goes_on=f"the experiment goes on; watch it with: {address.command('watch')}",
            quiet=as_json,
            rest=_REST,
        )
    _print(ended, as_json)
    if ended.state != "Succeeded":
        raise typer.Exit(1)


def _print(found: "Search", as_json: bool, next_step: str = "") -> None:
    from mlmesh.cli.experiment_view import search_picture

    if as_json:
        emit({**found.experiment, "trials": found.trials})
        return
    console().print(search_picture(found))
    if next_step and not found.ended:
        console().print(next_step, markup=False, soft_wrap=True)
