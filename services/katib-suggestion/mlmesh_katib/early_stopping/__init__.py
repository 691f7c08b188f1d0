"""Early stopping: which trials are not worth their time; each way is a file behind one small interface."""

from mlmesh_katib.early_stopping.asha import AshaStopping
from mlmesh_katib.early_stopping.base import EarlyStopping, History
from mlmesh_katib.early_stopping.medianstop import MedianStop

EARLY_STOPPING: dict[str, EarlyStopping] = {rule.name: rule for rule in (MedianStop(), AshaStopping())}
"""By their names in Katib, and ours."""

__all__ = ["EARLY_STOPPING", "AshaStopping", "EarlyStopping", "History", "MedianStop"]
