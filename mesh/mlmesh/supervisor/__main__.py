"""Runs a plan: `python -m mlmesh.supervisor PLAN LOCK_DESCRIPTOR [--leave-with-parent]`. `mlmesh up` starts it."""

import asyncio
import ctypes
import os
import signal
import sys
from pathlib import Path

from mlmesh.supervisor.plan import Plan
from mlmesh.supervisor.supervisor import Supervisor

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs the plan until told to stop."""
    plan, lock = Path(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(lock, False)  # held by this process alone: when it dies, the lock is free
    os.umask(0o077)
    if "--leave-with-parent" in sys.argv and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    asyncio.run(Supervisor(Plan.read(plan)).run())


if __name__ == "__main__":
    main()
