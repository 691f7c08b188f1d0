"""LightGBM models: its own text files, or pickles of what has scikit-learn's interface.

`predict` is that of the Booster: of a classifier the probability, not the label, as KServe's server answers, too.
"""

import re
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
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import TensorInfo

SUFFIXES = (".txt", ".bst", ".lgb")
_PROBABILITIES = ("binary", "multiclass", "multiclassova", "cross_entropy")
_OBJECTIVE = re.compile(r"^objective=(\S+)", re.MULTILINE)


class LightgbmPredictor(Predictor):
    """A Booster.

    Args:
        booster: It.
        objective: What it was trained for.
        options: How.
    """

    platform = "lightgbm"

    def __init__(self, booster: Any, objective: str, options: PredictorOptions) -> None:
        if options.method == "predict_proba" and objective not in _PROBABILITIES:
            raise FailedPrecondition(f"a model of the objective {objective or 'none'} has no predict_proba")
        self._booster = booster
        self._method = options.method
        self._threads = options.threads
        self.keeps_rows = options.keeps_rows is not False
        self._inputs = [TensorInfo("input", "FP64", (-1, int(booster.num_feature())))]
        width = self._predict(np.zeros((2, self._inputs[0].shape[1]))).shape[1:]
        self._outputs = [TensorInfo(self._method, "FP64", (-1, *width))]

    @classmethod
    def load(cls, model: LocalModel, options: PredictorOptions) -> Predictor:
        """See Predictor."""
        lightgbm = require("lightgbm")
        file = model.file(*SUFFIXES, *PICKLES)
        if file.suffix in PICKLES:
            found = load_pickle(model, file)
            if not isinstance(found, lightgbm.Booster):
                return SklearnPredictor(found, options, cls.platform)
            return cls(found, _objective(found.model_to_string(num_iteration=1)), options)
        text = _text(file)
        try:
            return cls(lightgbm.Booster(model_str=text), _objective(text), options)
        except (ValueError, lightgbm.basic.LightGBMError) as error:
            raise FailedPrecondition(f"{file.name} is no model of LightGBM: {str(error)[:200]}") from error

    def predict(self, arrays: Arrays) -> Mapping[str, Any]:
        """See Predictor."""
        data = only(arrays)
        if data.dtype.kind not in "biuf":
            raise TypeError(f"it must be of numbers, got {data.dtype}")
        if not len(data):
            return {self._method: np.zeros((0, *self._outputs[0].shape[1:]))}
        return {self._method: self._predict(data)}

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._outputs

    def _predict(self, data: NDArray[Any]) -> NDArray[Any]:
        result = self._booster.predict(data, raw_score=self._method == "decision_function", num_threads=self._threads)
        return of_classes(result) if self._method == "predict_proba" else np.asarray(result)


def _text(file: Path) -> str:
    """Reads a model's text and checks its form: what is cut off the library may read beyond.

    Raises:
        FailedPrecondition: It is none.
    """
    try:
        text = file.read_text()
    except UnicodeDecodeError as error:
        raise FailedPrecondition(f"{file.name} is no model of LightGBM: it is no text") from error
    if not text.startswith("tree\n") or "\nend of trees\n" not in text:
        raise FailedPrecondition(f"{file.name} is no model of LightGBM, or cut off")
    return text


def _objective(text: str) -> str:
    found = _OBJECTIVE.search(text)
    return found[1] if found else ""
