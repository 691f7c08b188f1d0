"""The command that saves an experiment's report."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.experiments import ExperimentName
from mlmesh.cli.finding_experiments import DEFAULT_NAMESPACE, Address, explained
from mlmesh.cli.options import DataDir, IngressUrl, Json, Namespace
from mlmesh.cli.output import console, emit, fail, printable

_STDOUT = "-"
_NOT_FOUND = 404


def report(
    experiment: ExperimentName,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to (EXPERIMENT.html); - is standard output")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there")] = False,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Save the report of an experiment: one HTML file, to look at in a browser."""
    from mlmesh.cli.client import IngressError

    if output == _STDOUT and as_json:
        fail("--json and -o - both want standard output; give one of them", as_json=as_json, code=2)
    address = Address(namespace or DEFAULT_NAMESPACE, experiment)
    with connected(ingress, data_dir, as_json=as_json) as mesh, explained(address, as_json=as_json):
        target = Path(output or f"{address.name.replace('/', '_')}.html")
        if output != _STDOUT and target.exists() and not force:
            fail(f"{target} is there already; write over it with --force, or elsewhere with -o FILE", as_json=as_json)
        mesh.get(address.path)
        try:
            # Read as a whole before it is written: what breaks off leaves no half of a file.
            content = b"".join(mesh.chunks(f"{address.path}/report"))
        except IngressError as error:
            if error.status != _NOT_FOUND:
                raise
            fail(f"{error}; this mesh makes no reports: it may be older than this command", as_json=as_json)
    if output == _STDOUT:
        sys.stdout.buffer.write(content)
        return
    try:
        target.write_bytes(content)
    except OSError as error:
        fail(f"cannot write {target}: {error.strerror}; choose another place with -o FILE", as_json=as_json)
    if as_json:
        emit({"report": str(target.resolve()), "bytes": len(content)})
    else:
        console().print(printable(f"saved {target}; open it in a browser"), markup=False, soft_wrap=True)
