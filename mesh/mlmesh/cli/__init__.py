"""The command mlmesh."""

import sys


def main() -> None:
    """Runs the command; ends the process with its exit code: 0 well, 1 failed, 2 wrongly called, 130 interrupted."""
    try:
        from mlmesh.cli.app import app

        app(prog_name="mlmesh")
    except KeyboardInterrupt:
        sys.exit(130)
