"""Model formats: each is a class behind one small interface, found by its name in KServe's `modelFormat`."""

from mlmesh_serving.predictors.base import Predictor
from mlmesh_serving.predictors.sklearn import SklearnPredictor

FORMATS: dict[str, type[Predictor]] = {"sklearn": SklearnPredictor}

__all__ = ["FORMATS", "Predictor"]
