"""Keeps a service that lost its lease on a run from writing to it."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from mlmesh_pipeline.tables import leases


class LostLease(Exception):
    """Another service drives the run now; this one must stop at once."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A lease that must be held for a write to count."""

    key: str
    owner: str


def check_fence(connection: Connection, fence: Fence) -> None:
    """Checks, in the transaction of the write, that the lease is still ours.

    Raises:
        LostLease: It is not.
    """
    mine = select(leases.c.owner).where(leases.c.key == fence.key)
    # Shared by our own writes; whoever would take the lease over waits for them.
    owner = connection.execute(mine.with_for_update(read=True)).scalar()
    if owner != fence.owner:
        raise LostLease(fence.key)
