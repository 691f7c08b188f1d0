"""scikit-learn models, as joblib or pickle files."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition
from numpy.typing import NDArray

from mlmesh_serving.predictors.base import Arrays, Predictor, only
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.predictors.pickles import SUFFIXES, load_pickle
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import TensorInfo, as_tensor

logger = logging.getLogger(__name__)


class SklearnPredictor(Predictor):
    """A fitted estimator or pipeline, or what has scikit-learn's interface.

    Args:
        estimator: Has the method.
        options: How.
        platform: What it is.
    """

    def __init__(self, estimator: Any, options: PredictorOptions, platform: str = "sklearn") -> None:
        method = options.method
        if not callable(getattr(estimator, method, None)):
            raise FailedPrecondition(f"the model ({type(estimator).__name__}) has no {method}")
        _limit_threads(estimator, options.threads)
        self.platform = platform
        self.keeps_rows = options.keeps_rows is not False
        self._call: Callable[[NDArray[Any]], Any] = getattr(estimator, method)
        self._method = method
        features = getattr(estimator, "n_features_in_", None)
        self._inputs = [] if features is None else [TensorInfo("input", "FP64", (-1, int(features)))]
        self._outputs = self._warm()

    @classmethod
    def load(cls, model: LocalModel, options: PredictorOptions) -> Predictor:
        """See Predictor."""
        estimator = load_pickle(model, model.file(*SUFFIXES))
        if options.convert_to:
            from mlmesh_serving.predictors.conversion import converted

            return converted(estimator, options)
        return cls(estimator, options)

    def predict(self, arrays: Arrays) -> Mapping[str, Any]:
        """See Predictor."""
        return self._named(self._call(only(arrays)))

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return self._outputs

    def _named(self, result: Any) -> Mapping[str, Any]:
        if isinstance(result, list):  # predict_proba of what has several targets: a matrix for each
            return {f"{self._method}_{index}": matrix for index, matrix in enumerate(result)}
        return {self._method: result.toarray() if hasattr(result, "toarray") else result}  # a sparse matrix

    def _warm(self) -> list[TensorInfo]:
        """Predicts two rows of zeros: what the first prediction pays for is paid now, and the outputs are known."""
        if not self._inputs:
            return []
        try:
            results = self._named(self._call(np.zeros((2, self._inputs[0].shape[1]))))
            outputs = [as_tensor(name, result) for name, result in results.items()]
        except Exception as error:  # zeros may mean nothing to the model
            logger.info("not warmed: %s", type(error).__name__)
            return []
        return [TensorInfo(output.name, output.datatype, (-1, *output.data.shape[1:])) for output in outputs]


def _limit_threads(estimator: Any, threads: int) -> None:
    """Limits the threads of the numeric libraries in this process, and of the estimator itself."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=threads)
    get_params = getattr(estimator, "get_params", None)
    if get_params is None:
        return
    with contextlib.suppress(Exception):  # estimators of others: what they do not take is left as it is
        known = get_params(deep=True)
        estimator.set_params(**{name: threads for name in known if name == "n_jobs" or name.endswith("__n_jobs")})
