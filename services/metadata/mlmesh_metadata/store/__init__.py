"""Persistence: MLMD's tables by SQLAlchemy. The only place with SQL."""

from mlmesh_metadata.store.nodes import Stamp
from mlmesh_metadata.store.store import Session, Store

__all__ = ["Session", "Stamp", "Store"]
