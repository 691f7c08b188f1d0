"""scikit-learn models, as joblib or pickle files."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition
from numpy.typing import NDArray

from mlmesh_serving.predictors.base import Predictor
from mlmesh_serving.storage import check_inside
from mlmesh_serving.tensor import TensorInfo, as_tensor

logger = logging.getLogger(__name__)

# In KServe's order; a folder must hold exactly one.
_SUFFIXES = (".joblib", ".pkl", ".pickle")


class SklearnPredictor(Predictor):
    """A fitted estimator or pipeline.

    Args:
        estimator: Has the method.
        method: predict, predict_proba or decision_function.
    """

    platform = "sklearn"

    def __init__(self, estimator: Any, method: str) -> None:
        if not callable(getattr(estimator, method, None)):
            raise FailedPrecondition(f"the model ({type(estimator).__name__}) has no {method}")
        self._call: Callable[[NDArray[Any]], Any] = getattr(estimator, method)
        self._method = method
        features = getattr(estimator, "n_features_in_", None)
        self._inputs = [] if features is None else [TensorInfo("input", "FP64", (-1, int(features)))]
        self._outputs = self._warm()

    @classmethod
    def load(cls, path: Path, method: str) -> "SklearnPredictor":
        """See Predictor. A pickle runs code: the caller has checked that the path may be trusted."""
        file = path if path.is_file() else _model_file(path)
        import joblib

        try:
            estimator = joblib.load(file)
        except Exception as error:
            raise FailedPrecondition(f"{file.name} cannot be loaded: {type(error).__name__}: {error}") from error
        return cls(estimator, method)

    def predict(self, data: NDArray[Any]) -> Any:
        """See Predictor."""
        return self._call(data)

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._outputs

    @property
    def output_name(self) -> str:
        """See Predictor."""
        return self._method

    def _warm(self) -> list[TensorInfo]:
        """Predicts two rows of zeros: what the first prediction pays for is paid now, and the outputs are known."""
        if not self._inputs:
            return []
        try:
            output = as_tensor(self._method, self._call(np.zeros((2, self._inputs[0].shape[1]))))
        except Exception as error:  # zeros may mean nothing to the model
            logger.info("not warmed: %s", type(error).__name__)
            return []
        return [TensorInfo(output.name, output.datatype, (-1, *output.data.shape[1:]))]


def _model_file(folder: Path) -> Path:
    found = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if len(found) != 1:
        raise FailedPrecondition(
            f"the folder must hold exactly one model file ({', '.join('*' + s for s in _SUFFIXES)}), got {len(found)}"
        )
    return check_inside(folder, found[0])
