"""`mlmesh tune ...`, gathered. Without the name of a command the first argument is a file to run."""

import difflib
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from mlmesh.cli import experiment_changes, experiment_report, experiments, trials

_DEFAULT = "run"


class _RunsByDefault(TyperGroup):
    """A group whose first argument may be a file: `mlmesh tune FILE` is `mlmesh tune run FILE`; nothing lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the default command before arguments that begin with no command."""
        if not args and ctx.resilient_parsing:  # a shell that completes the first word wants the commands
            return super().parse_args(ctx, args)
        if not args or not (args[0] in {*self.commands, "--help", "-h"} or self._is_mistyped(args[0])):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _is_mistyped(self, word: str) -> bool:
        """Tells a command that was mistyped from a file; the former is answered with what may have been meant."""
        return bool(difflib.get_close_matches(word, self.commands, n=1)) and not Path(word).exists()


group = typer.Typer(
    cls=_RunsByDefault,
    help="Search for the best parameters: mlmesh tune FILE runs a Katib Experiment; mlmesh tune alone lists them.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

group.command(_DEFAULT)(experiments.run)
group.command("list")(experiments.list_experiments)
group.command("show")(experiments.show)
group.command("watch")(experiments.watch)
group.command("trials")(trials.list_trials)
group.command("logs")(trials.logs)
group.command("metrics")(trials.metrics)
group.command("edit")(experiment_changes.edit)
group.command("pause")(experiment_changes.pause)
group.command("resume")(experiment_changes.resume)
group.command("delete")(experiment_changes.delete)
group.command("report")(experiment_report.report)
