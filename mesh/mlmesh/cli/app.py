"""All commands, gathered."""

from collections.abc import Callable

import typer

from mlmesh.cli import jobs, mesh

app = typer.Typer(
    name="mlmesh",
    help="Kubeflow's components as a mesh of gRPC services, on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "The mesh": (mesh.up, mesh.down, mesh.status, mesh.logs, mesh.doctor, mesh.render),
    "What runs on it": (jobs.run, jobs.runs, jobs.tune, jobs.deploy, jobs.predict, jobs.lineage),
}

for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
