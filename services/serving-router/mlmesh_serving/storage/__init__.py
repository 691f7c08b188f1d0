"""Where models and stages come from: found by URI, checked, downloaded once, kept by content."""

from mlmesh_serving.storage.local_model import LocalModel, check_inside
from mlmesh_serving.storage.location import MAX_URI_LENGTH
from mlmesh_serving.storage.model_storage import ModelStorage, StorageConfig

__all__ = ["MAX_URI_LENGTH", "LocalModel", "ModelStorage", "StorageConfig", "check_inside"]
