"""Commands that take lineage out, and put it in."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail


class FileFormat(StrEnum):
    """How a file is written."""

    JSONL = "jsonl"
    OPENLINEAGE = "openlineage"


_Format = Annotated[FileFormat, typer.Option("--format", "-f", help="ML Metadata as JSON lines, or OpenLineage events")]


def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file")] = None,
    form: _Format = FileFormat.JSONL,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write everything that the metadata service holds, a line each."""
    with connected(ingress, data_dir, as_json=False) as mesh:
        try:
            with output.open("w") if output is not None else sys.stdout as target:
                for line in mesh.lines("/metadata/v1/export", format=str(form)):
                    target.write(f"{line}\n")
        except OSError as error:
            fail(f"{output or 'standard output'}: {error.strerror}")


def take(
    source: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="What was exported")],
    form: _Format = FileFormat.JSONL,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Store what a file holds; twice is once."""
    with connected(ingress, data_dir, as_json=as_json) as mesh, source.open("rb") as content:
        found = mesh.upload("/metadata/v1/import", content, format=str(form))
    if as_json:
        emit(found)
        return
    counts = {what: sum(found.get(what, {}).values()) for what in ("created", "updated", "unchanged")}
    console().print(f"{found['lines']} lines: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
