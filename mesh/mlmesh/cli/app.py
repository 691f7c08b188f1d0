"""All commands, gathered."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from mlmesh.cli import cache, debugging_tasks, diff, logs, mesh, models, rerun, runs, schedules, serving, traffic
from mlmesh.cli.lineage_group import group as lineage_group
from mlmesh.cli.tune_group import group as tune_group

_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "The mesh": (mesh.up, mesh.down, mesh.status, logs.logs, mesh.doctor, mesh.render),
    "What runs on it": (
        runs.run,
        runs.runs,
        runs.retry,
        runs.terminate,
        rerun.rerun,
        diff.diff,
        debugging_tasks.debug,
        serving.deploy,
        serving.predict,
        models.models,
        traffic.traffic,
        traffic.promote,
        traffic.rollback,
    ),
}


class Commands(TyperGroup):
    """The commands, with a help page of their own: Typer's imports a Markdown reader, for half of the time it takes."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the help page."""
        from rich.table import Table

        from mlmesh.cli.output import console

        out = console()
        out.print(f"\n[bold]mlmesh[/] COMMAND [OPTION]...\n\n{self.help}\n")
        for panel in _PANELS:
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(style="bold cyan", min_width=10)
            for name in self.list_commands(ctx):
                command = self.get_command(ctx, name)
                if command is not None and getattr(command, "rich_help_panel", None) == panel:
                    table.add_row(name, command.get_short_help_str(200))
            out.print(f"[bold]{panel}[/]")
            out.print(table)
            out.print()
        out.print("[dim]More: mlmesh COMMAND --help. Completion in the shell: mlmesh --install-completion[/]")


app = typer.Typer(
    name="mlmesh",
    cls=Commands,
    help="Kubeflow's components as a mesh of gRPC services, on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(cache.group, name="cache", rich_help_panel="What runs on it")
app.add_typer(schedules.group, name="schedules", rich_help_panel="What runs on it")
app.add_typer(tune_group, name="tune", rich_help_panel="What runs on it")
app.add_typer(lineage_group, name="lineage", rich_help_panel="What runs on it")
