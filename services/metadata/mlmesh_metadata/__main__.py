"""Starts the metadata service: `python -m mlmesh_metadata`."""

from mlmesh_kit.server import serve

from mlmesh_metadata.config import Settings
from mlmesh_metadata.server import build

if __name__ == "__main__":
    raise SystemExit(serve(build, Settings))
