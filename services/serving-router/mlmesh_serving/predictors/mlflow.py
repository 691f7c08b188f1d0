"""MLflow models: the file MLmodel says what they are; the models of the libraries below are loaded without MLflow.

Format: https://mlflow.org/docs/latest/model/, "Storage Format". Models that have the flavour `python_function` alone
are run by MLflow itself, if it is installed.
"""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.documents import load_yaml
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_serving.predictors.base import Predictor
from mlmesh_serving.predictors.lightgbm import LightgbmPredictor
from mlmesh_serving.predictors.onnx import OnnxPredictor
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.predictors.pickles import SUFFIXES as PICKLES
from mlmesh_serving.predictors.pyfunc import PyfuncPredictor
from mlmesh_serving.predictors.sklearn import SklearnPredictor
from mlmesh_serving.predictors.xgboost import XgboostPredictor, load_xgboost
from mlmesh_serving.storage import LocalModel

FILE = "MLmodel"
_MAX_BYTES = 1 << 20
# Flavour: who loads it, and the key of the file's name.
_FLAVOURS: Mapping[str, tuple[type[Predictor], str]] = {
    "xgboost": (XgboostPredictor, "data"),
    "lightgbm": (LightgbmPredictor, "data"),
    "onnx": (OnnxPredictor, "data"),
    "sklearn": (SklearnPredictor, "pickled_model"),
}
_PYFUNC = "python_function"


# Classes of XGBoost's own interface to scikit-learn, whose files are those of their Booster.
_XGBOOST = frozenset({"XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"})


def load_mlflow(model: LocalModel, options: PredictorOptions) -> Predictor:
    """Loads what the file MLmodel describes; what it gives is the predictor of that format.

    Raises:
        FailedPrecondition: See `Predictor.load`; or there is no such file, or no flavour that can be served.
    """
    flavours = _flavours(model)
    for name, (loader, key) in _FLAVOURS.items():
        flavour = flavours.get(name)
        if isinstance(flavour, Mapping):
            inner = model.inner(_file_name(flavour, name, key))
            kind = str(flavour.get("model_class", "")).rpartition(".")[2]
            if kind in _XGBOOST and inner.path.suffix not in PICKLES:
                return SklearnPredictor(load_xgboost(inner.path, kind), options, XgboostPredictor.platform)
            return loader.load(inner, options)
    if _PYFUNC in flavours:
        return PyfuncPredictor.load(model, options)
    known = ", ".join((*_FLAVOURS, _PYFUNC))
    raise FailedPrecondition(f"{FILE} has none of the flavours {known}; it has {', '.join(map(str, flavours))[:200]}")


def _flavours(model: LocalModel) -> Mapping[str, Any]:
    if not model.path.is_dir():
        raise FailedPrecondition(f"an MLflow model is a folder with a file {FILE}")
    described = model.inner(FILE).path
    try:
        with described.open("rb") as file:
            content = load_yaml(file.read(_MAX_BYTES + 1), field=FILE, max_bytes=_MAX_BYTES)
    except (InvalidArgument, OSError) as error:
        raise FailedPrecondition(f"{FILE} cannot be read: {str(error)[:300]}") from error
    flavours = content.get("flavors") if isinstance(content, Mapping) else None
    if not isinstance(flavours, Mapping):
        raise FailedPrecondition(f"{FILE} has no flavors")
    return flavours


def _file_name(flavour: Mapping[str, Any], name: str, key: str) -> str:
    value = flavour.get(key)
    if not isinstance(value, str) or not value:
        raise FailedPrecondition(f"{FILE}: flavors.{name}.{key} must say a file")
    return value
