"""Early stopping: which trials are not worth their time; each way is a file behind one small interface."""

from mlmesh_katib.early_stopping.base import EarlyStopping, History

EARLY_STOPPING: dict[str, EarlyStopping] = {}
"""By their names in Katib, and ours."""

__all__ = ["EARLY_STOPPING", "EarlyStopping", "History"]
