"""Starts the pipeline service."""

from mlmesh_kit.server import serve

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.server import build

if __name__ == "__main__":
    raise SystemExit(serve(build, Settings))
