"""XGBoost models: its own files (JSON and UBJSON), or pickles of what has scikit-learn's interface.

`predict` is that of the Booster: of a classifier the probability, not the label, as KServe's server answers, too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition
from numpy.typing import NDArray

from mlmesh_serving.predictors.base import Arrays, Predictor, only, require
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.predictors.pickles import SUFFIXES as PICKLES
from mlmesh_serving.predictors.pickles import load_pickle
from mlmesh_serving.predictors.probabilities import of_classes
from mlmesh_serving.predictors.sklearn import SklearnPredictor
from mlmesh_serving.predictors.ubjson import check_ubjson
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import TensorInfo

SUFFIXES = (".json", ".ubj", ".bst", ".xgb")
_LINEAR = "gblinear"
_PROBABILITIES = {"binary:logistic", "multi:softprob"}


class XgboostPredictor(Predictor):
    """A Booster.

    Args:
        booster: It.
        options: How.
    """

    platform = "xgboost"

    def __init__(self, booster: Any, options: PredictorOptions) -> None:
        self._xgboost = require("xgboost")
        booster.set_param({"nthread": options.threads, "device": "cpu"})
        learner = json.loads(booster.save_config())["learner"]
        objective = learner["objective"]["name"]
        if options.method == "predict_proba" and objective not in _PROBABILITIES:
            raise FailedPrecondition(f"a model of the objective {objective} has no predict_proba")
        self._is_linear = learner["gradient_booster"]["name"] == _LINEAR
        self._booster = booster
        self._method = options.method
        self._margin = options.method == "decision_function"
        self._threads = options.threads
        self.keeps_rows = options.keeps_rows is not False
        self._inputs = [TensorInfo("input", "FP32", (-1, int(booster.num_features())))]
        self._outputs = self._warm()

    @classmethod
    def load(cls, model: LocalModel, options: PredictorOptions) -> Predictor:
        """See Predictor."""
        xgboost = require("xgboost")
        file = model.file(*SUFFIXES, *PICKLES)
        if file.suffix in PICKLES:
            found = load_pickle(model, file)
            if isinstance(found, xgboost.Booster):
                return cls(found, options)
            return SklearnPredictor(found, options, cls.platform)
        return cls(load_xgboost(file), options)

    def predict(self, arrays: Arrays) -> Mapping[str, Any]:
        """See Predictor."""
        data = only(arrays)
        if data.dtype.kind not in "biuf":
            raise TypeError(f"it must be of numbers, got {data.dtype}")
        result = self._predict(data)
        return {self._method: of_classes(result) if self._method == "predict_proba" else result}

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._outputs

    def _predict(self, data: NDArray[Any]) -> NDArray[Any]:
        if not len(data):
            return np.zeros((0, *self._outputs[0].shape[1:]), np.float32)
        if self._is_linear:
            matrix = self._xgboost.DMatrix(data, nthread=self._threads)
            result: NDArray[Any] = self._booster.predict(matrix, output_margin=self._margin)
        else:
            kind = "margin" if self._margin else "value"
            result = self._booster.inplace_predict(data, predict_type=kind)
        return result

    def _warm(self) -> list[TensorInfo]:
        rows = np.zeros((2, self._inputs[0].shape[1]), np.float32)
        result = self._predict(rows)
        if self._method == "predict_proba":
            result = of_classes(result)
        return [TensorInfo(self._method, "FP32", (-1, *result.shape[1:]))]


def load_xgboost(file: Path, kind: str = "Booster") -> Any:
    """Loads a file of XGBoost's own; it goes by the content, and not by the name.

    Args:
        file: JSON or UBJSON.
        kind: The class that is made of it.

    Raises:
        FailedPrecondition: It is no model.
    """
    xgboost = require("xgboost", "xgboost")
    content = bytearray(file.read_bytes())
    made = getattr(xgboost, kind)()
    try:
        _check(content)
        made.load_model(content)
    except (ValueError, RecursionError, xgboost.core.XGBoostError) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise FailedPrecondition(f"{file.name} is no model of XGBoost: {reason}") from error
    return made


def _check(content: bytearray) -> None:
    """Checks the form of a file: on some that are cut off the library ends the process.

    Raises:
        ValueError: It is neither JSON nor UBJSON, or cut off.
    """
    if not content.startswith(b"{"):
        raise ValueError("it is neither JSON nor UBJSON; XGBoost 3.1 and later no longer read its older binary format")
    if bytes(content[1:2]) in {b"L", b"l", b"I", b"i", b"U", b"$", b"#", b"}"}:
        check_ubjson(content)
    else:
        json.loads(content)
