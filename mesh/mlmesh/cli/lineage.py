"""`mlmesh lineage ARTIFACT`: where an artifact comes from."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json
from mlmesh.cli.output import console, emit, fail


class Direction(StrEnum):
    """Which way to walk."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"
    BOTH = "both"


def show(
    artifact: Annotated[str, typer.Argument(help="Id, URI or name of an artifact; mlmesh runs RUN_ID shows ids")],
    direction: Annotated[
        Direction, typer.Option("--direction", "-d", help="How it came to be, or what was made of it")
    ] = Direction.UPSTREAM,
    depth: Annotated[int, typer.Option(min=1, max=10_000, help="How many executions away to look")] = 20,
    kind: Annotated[str, typer.Option("--type", help="Type of the artifact, where several have the name")] = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show where an artifact comes from: the executions that made it, and what they used."""
    from mlmesh.cli.client import IngressError
    from mlmesh.cli.lineage_view import Lineage

    with connected(ingress, data_dir, as_json=as_json) as mesh:
        field = "artifact_id" if artifact.lstrip("#").isdecimal() else "uri" if "://" in artifact else "name"
        given = artifact.lstrip("#") if field == "artifact_id" else artifact
        query: dict[str, Any] = {
            field: given,
            "direction": f"DIRECTION_{direction.upper()}",
            "max_depth": depth,
            "type": kind or None,
        }
        try:
            found = mesh.get("/metadata/v1/lineage", **query)
        except IngressError as error:
            if error.status == 404:
                fail(f"{error}; the artifacts of a run are shown by: mlmesh runs RUN_ID", as_json=as_json)
            raise
        if as_json:
            emit(found)
            return
        graph = Lineage(found)
        both = direction is Direction.BOTH
        trees = graph.trees(
            upstream=both or direction is Direction.UPSTREAM, downstream=both or direction is Direction.DOWNSTREAM
        )
        for tree in trees:
            console().print(tree)
        if graph.truncated:
            console().print(f"there is more beyond; go further with: --depth {min(10_000, depth * 2)}", style="dim")
