"""Finds the mesh that runs on a data directory. Imports little: every command begins here."""

import json
import os
from pathlib import Path

from mlmesh.supervisor import lock
from mlmesh.supervisor.layout import Layout
from mlmesh.supervisor.plan import MeshState

DEFAULT_DATA_DIR = "~/.mlmesh"


def resolve_data_dir(given: str | Path | None = None) -> Path:
    """Gives the data directory, absolute: as given, else MLMESH_DATA_DIR, else ~/.mlmesh."""
    return Path(given or os.environ.get("MLMESH_DATA_DIR") or DEFAULT_DATA_DIR).expanduser().absolute()


def running(data_dir: Path) -> MeshState | None:
    """Gives the state of the mesh that runs on a data directory, None if none does."""
    layout = Layout(data_dir)
    return MeshState.read(layout.state) if lock.is_held(layout.lock) else None


def read_health(layout: Layout) -> dict[str, bool]:
    """Asks the ingress which services are healthy; empty while it is not there."""
    import asyncio

    from mlmesh.supervisor import admin

    try:
        return asyncio.run(admin.read_health(layout.admin_socket))
    except (OSError, json.JSONDecodeError):
        return {}
