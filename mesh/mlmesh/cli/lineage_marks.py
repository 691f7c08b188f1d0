"""Commands for marks: what was built on bad data."""

from typing import Annotated, Any

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit


def mark(
    artifact: Annotated[int, typer.Argument(min=1, help="Id of the artifact that is bad")],
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why it is bad")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be marked")] = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Mark an artifact as bad, with all that was made from it, now and later."""
    body = {"artifact_id": str(artifact), "reason": reason, "validate_only": dry_run}
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.send("POST", "/metadata/v1/marks", body)
    if as_json:
        emit(found)
        return
    console().print(f"{'would mark' if dry_run else 'marked'} {_counts(found)}")
    if not dry_run:
        console().print(f"take it back with: mlmesh lineage unmark {_number(found)}", style="dim")


def marks(
    undone: Annotated[bool, typer.Option("--undone", help="Also those that were taken back")] = False,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List what is marked as bad, newest first."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = list(mesh.pages("/metadata/v1/marks", "marks", show_undone=undone or None))
    if as_json:
        emit({"marks": found})
        return
    if not found:
        console().print("nothing is marked")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("mark", "artifact", "reason", "by", "when", "on", box=None)
    for one in found:
        state = " (taken back)" if one.get("undo_time") else ""
        when = str(one.get("create_time", ""))[:19]
        row = (
            _number(one),
            f"#{one['artifact_id']}",
            escape(one["reason"]) + state,
            escape(one.get("creator", "")),
            when,
            _counts(one),
        )
        table.add_row(*row)
    console().print(table)


def unmark(
    number: Annotated[int, typer.Argument(metavar="MARK", min=1, help="Number of the mark; mlmesh lineage marks")],
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Take a mark back from everything it is on."""
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        found = mesh.send("POST", f"/metadata/v1/marks/{number}:undo", {})
    if as_json:
        emit(found)
    else:
        console().print(f"took mark {number} back from {_counts(found)}")


def _number(one: dict[str, Any]) -> str:
    return str(one.get("name", "")).removeprefix("marks/")


def _counts(one: dict[str, Any]) -> str:
    counts = [(int(one.get(f"{kind}_count", 0)), kind) for kind in ("artifact", "execution")]
    return " and ".join(f"{count} {kind}{'' if count == 1 else 's'}" for count, kind in counts)
