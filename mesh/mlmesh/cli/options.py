"""Options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where all state lives ($MLMESH_DATA_DIR, else ~/.mlmesh)")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]
IngressUrl = Annotated[
    str | None,
    typer.Option(
        "--ingress",
        envvar="MLMESH_INGRESS",
        show_envvar=False,
        help="URL of the mesh ($MLMESH_INGRESS, else that on the data directory)",
    ),
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace (that of the manifest, else default)")]
