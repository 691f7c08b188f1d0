"""Starts the serving router: `python -m mlmesh_serving`."""

from mlmesh_kit.server import serve

from mlmesh_serving.config import Settings
from mlmesh_serving.server import build

if __name__ == "__main__":
    raise SystemExit(serve(build, Settings))
