"""`mlmesh lineage ...`, gathered. Without the name of a command the first argument is an artifact to show."""

from typing import Any

import typer
from typer.core import TyperGroup

from mlmesh.cli import lineage, lineage_exchange, lineage_marks, lineage_questions, lineage_retention

_DEFAULT = "show"


class _ShowsByDefault(TyperGroup):
    """A group whose first argument may be an artifact: `mlmesh lineage 22` is `mlmesh lineage show 22`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the default command before arguments that begin with no command."""
        if args and args[0] not in {*self.commands, "--help", "-h"}:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=_ShowsByDefault,
    help="Ask where artifacts come from, what was made of them, and what has been run before.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

group.command(_DEFAULT)(lineage.show)
group.command("list")(lineage_questions.list_artifacts)
group.command("compare")(lineage_questions.compare)
group.command("graph")(lineage_questions.graph)
group.command("seen")(lineage_questions.seen)
group.command("search")(lineage_questions.search)
group.command("contexts")(lineage_questions.contexts)
group.command("record")(lineage_questions.record)
group.command("mark")(lineage_marks.mark)
group.command("marks")(lineage_marks.marks)
group.command("unmark")(lineage_marks.unmark)
group.command("delete")(lineage_retention.delete)
group.command("deleted")(lineage_retention.deleted)
group.add_typer(lineage_retention.retention, name="retention")
group.command("export")(lineage_exchange.export)
group.command("import")(lineage_exchange.take)
