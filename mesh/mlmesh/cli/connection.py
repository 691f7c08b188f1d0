"""How commands reach the mesh, and how they end when it refuses."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlmesh.cli.output import fail
from mlmesh.running import resolve_data_dir

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress


@contextlib.contextmanager
def connected(ingress: str | None, data_dir: Path | None, *, as_json: bool) -> Iterator["Ingress"]:
    """Connects to the mesh; what it refuses ends the command with a message that says what to do next."""
    from mlmesh.cli.client import Ingress, IngressError, find_ingress
    from mlmesh.documents import DocumentError

    try:
        with Ingress(find_ingress(ingress, resolve_data_dir(data_dir))) as mesh:
            yield mesh
    except (IngressError, DocumentError) as error:
        fail(str(error), as_json=as_json)
