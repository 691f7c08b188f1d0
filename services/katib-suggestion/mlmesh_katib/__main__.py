"""Starts the Katib service: `python -m mlmesh_katib`."""

from mlmesh_kit.server import serve

from mlmesh_katib.config import Settings
from mlmesh_katib.server import build

if __name__ == "__main__":
    raise SystemExit(serve(build, Settings))
