"""scikit-learn models, as joblib or pickle files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from numpy.typing import NDArray

from mlmesh_serving.predictors.base import Predictor, TensorInfo

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
        if not hasattr(estimator, method):
            raise FailedPrecondition(f"the model ({type(estimator).__name__}) has no {method}")
        self._call: Callable[[NDArray[Any]], Any] = getattr(estimator, method)
        self._method = method
        features = getattr(estimator, "n_features_in_", None)
        self._features: int | None = int(features) if features is not None else None

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
        if self._features is not None and (data.ndim != 2 or data.shape[1] != self._features):
            raise InvalidArgument(f"must have the shape [-1, {self._features}], got {list(data.shape)}", field="inputs")
        try:
            return self._call(data)
        except (ValueError, TypeError) as error:  # what scikit-learn's own checks of the input raise
            raise InvalidArgument(f"the model refused it: {str(error)[:500]}", field="inputs") from error

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return [TensorInfo("input", "FP64", (-1, self._features or -1))]

    @property
    def output_name(self) -> str:
        """See Predictor."""
        return self._method


def _model_file(folder: Path) -> Path:
    found = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if len(found) != 1:
        raise FailedPrecondition(
            f"the folder must hold exactly one model file ({', '.join('*' + s for s in _SUFFIXES)}), got {len(found)}"
        )
    return found[0]
