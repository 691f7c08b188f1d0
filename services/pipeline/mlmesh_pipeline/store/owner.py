"""Who holds leases: a process, so that on one machine the leases of a dead one need not be waited for."""

import contextlib
import os
import socket
import uuid

import psutil
from mlmesh_kit.database import read, run_transaction
from sqlalchemy import Engine, delete, select

from mlmesh_pipeline.tables import leases

_TOLERANCE_SECONDS = 2.0


def new_owner() -> str:
    """Names this process, for good: host, process id, its start, and something random."""
    started = psutil.Process().create_time()
    return f"{socket.gethostname()}/{os.getpid()}/{started:.2f}/{uuid.uuid4().hex[:8]}"


def free_leases_of_the_dead(engine: Engine) -> int:
    """Frees leases whose holders no longer live; gives how many.

    On SQLite only: there all holders are processes of this machine, and can be looked at.
    """
    if engine.dialect.name != "sqlite":
        return 0
    with read(engine) as connection:
        owners = set(connection.execute(select(leases.c.owner)).scalars())
    dead = [owner for owner in owners if _is_dead(owner)]
    if dead:
        run_transaction(engine, lambda connection: connection.execute(delete(leases).where(leases.c.owner.in_(dead))))
    return len(dead)


def _is_dead(owner: str) -> bool:
    parts = owner.split("/")
    if len(parts) != 4 or parts[0] != socket.gethostname():
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(parts[1]))
        same = abs(process.create_time() - float(parts[2])) < _TOLERANCE_SECONDS
        return not same or process.status() == psutil.STATUS_ZOMBIE
    return True
