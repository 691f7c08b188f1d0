"""Model formats: each is a function that loads behind one small interface, by its name in KServe's `modelFormat`."""

from collections.abc import Callable, Mapping

from mlmesh_serving.predictors.base import Predictor
from mlmesh_serving.predictors.lightgbm import LightgbmPredictor
from mlmesh_serving.predictors.mlflow import load_mlflow
from mlmesh_serving.predictors.onnx import OnnxPredictor
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.predictors.python import PythonPredictor
from mlmesh_serving.predictors.pytorch import PytorchPredictor
from mlmesh_serving.predictors.sklearn import SklearnPredictor
from mlmesh_serving.predictors.xgboost import XgboostPredictor
from mlmesh_serving.storage import LocalModel

FORMATS: Mapping[str, Callable[[LocalModel, PredictorOptions], Predictor]] = {
    "lightgbm": LightgbmPredictor.load,
    "mlflow": load_mlflow,
    "onnx": OnnxPredictor.load,
    "python": PythonPredictor.load,
    "pytorch": PytorchPredictor.load,
    "sklearn": SklearnPredictor.load,
    "xgboost": XgboostPredictor.load,
}
