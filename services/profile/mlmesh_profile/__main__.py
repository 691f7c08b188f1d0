"""Starts the profile service: `python -m mlmesh_profile`."""

from mlmesh_kit.server import serve

from mlmesh_profile.config import Settings
from mlmesh_profile.server import build

if __name__ == "__main__":
    raise SystemExit(serve(build, Settings))
