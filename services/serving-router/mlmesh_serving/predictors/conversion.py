"""scikit-learn models as ONNX models, if they give the same numbers.

The converted model computes with 32-bit floats. Before it is served, both predict synthetic rows, and what they give is
compared. The rows are drawn from where the model's own numbers (thresholds of trees, means and scales, bounds) say that
its data lie: elsewhere a loss of digits would not show.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition
from numpy.typing import NDArray

from mlmesh_serving.predictors.base import require
from mlmesh_serving.predictors.onnx import OnnxPredictor, open_session
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.tensor import TensorInfo

ROWS = 1000
_SEED = 20
_METHODS = ("predict", "predict_proba", "decision_function", "transform")
_MAX_TREES = 200


def converted(estimator: Any, options: PredictorOptions) -> OnnxPredictor:
    """Converts a fitted estimator, and compares the two.

    Args:
        estimator: Of scikit-learn, or a pipeline.
        options: Which method, and how far apart the two may be.

    Raises:
        FailedPrecondition: It cannot be converted, or what it gives differs by more than the tolerance.
    """
    method = options.method
    features = getattr(estimator, "n_features_in_", None)
    if method not in _METHODS or not callable(getattr(estimator, method, None)) or features is None:
        raise FailedPrecondition(f"the model ({type(estimator).__name__}) has no {method} that can be converted")
    session = open_session(_converted(estimator, int(features), method), options.threads)
    output = _output(session, estimator, method)
    predictor = _Converted(session, options, {output: method})
    rows = synthetic_rows(estimator, int(features))
    expected = np.asarray(getattr(estimator, method)(rows))
    got = np.asarray(predictor.predict({"input": rows})[method])
    difference = _difference(expected, got)
    if not difference <= options.tolerance:
        raise FailedPrecondition(
            f"the converted model is not the same: what {method} gives differs by {difference:.3g} "
            f"on {ROWS} synthetic rows, and the tolerance is {options.tolerance:g}"
        )
    return predictor


class _Converted(OnnxPredictor):
    """What it takes is as with the original, whose clients are not to notice; it computes with 32 bits."""

    @property
    def inputs(self) -> list[TensorInfo]:
        """See Predictor."""
        return [TensorInfo(info.name, "FP64", info.shape) for info in super().inputs]


def _converted(estimator: Any, features: int, method: str) -> bytes:
    skl2onnx = require("skl2onnx")
    types = require("skl2onnx.common.data_types")
    settings: dict[str, Any] = {}
    if hasattr(estimator, "classes_"):
        settings = {"zipmap": False, "raw_scores": True} if method == "decision_function" else {"zipmap": False}
    steps = getattr(estimator, "steps", None)
    classifier = steps[-1][1] if steps else estimator
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = skl2onnx.convert_sklearn(
                estimator,
                initial_types=[("input", types.FloatTensorType([None, features]))],
                options={id(classifier): settings} if settings else None,
            )
    except Exception as error:  # of many classes: converters of single estimators raise what they will
        reason = str(error).strip().partition("\n")[0][:300]
        raise FailedPrecondition(f"{type(estimator).__name__} cannot be converted to ONNX: {reason}") from error
    content: bytes = made.SerializeToString()
    return content


def _output(session: Any, estimator: Any, method: str) -> str:
    """Gives the name of the output that is the method's: of classifiers the first is the label."""
    names = [node.name for node in session.get_outputs()]
    wanted = 1 if hasattr(estimator, "classes_") and method != "predict" else 0
    if wanted >= len(names):
        raise FailedPrecondition(f"the converted model gives nothing for {method}")
    return str(names[wanted])


def synthetic_rows(estimator: Any, features: int) -> NDArray[Any]:
    """Draws rows from where a model's data may lie.

    Args:
        estimator: The model.
        features: Its columns.
    """
    low, high = np.full(features, np.inf), np.full(features, -np.inf)
    for part in _parts(estimator):
        for first, last in _bounds(part, features):
            np.minimum(low, first, out=low)
            np.maximum(high, last, out=high)
    unknown = low > high
    low[unknown], high[unknown] = -1.0, 1.0
    narrow = low == high  # one threshold says where, and not how far
    low[narrow], high[narrow] = low[narrow] - 1.0, high[narrow] + 1.0
    chance = np.random.default_rng(_SEED)
    middle, half = (low + high) / 2, (high - low) / 2
    spread = chance.choice([0.5, 1.0, 2.0], size=(ROWS, 1))
    rows: NDArray[Any] = middle + half * spread * chance.standard_normal((ROWS, features))
    return rows


def _parts(estimator: Any) -> Iterator[Any]:
    """Gives the parts of a model that see its columns as they come: not what stands behind a step that changes them."""
    steps = getattr(estimator, "steps", None)
    if steps:
        yield from _parts(steps[0][1])
        return
    yield estimator
    trees = getattr(estimator, "estimators_", None)
    if trees is not None:
        yield from np.ravel(np.asarray(trees, dtype=object))[:_MAX_TREES]


def _bounds(part: Any, features: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    tree = getattr(part, "tree_", None)
    if tree is not None:
        first, last = np.full(features, np.inf), np.full(features, -np.inf)
        inner = tree.feature >= 0
        np.minimum.at(first, tree.feature[inner], tree.threshold[inner])
        np.maximum.at(last, tree.feature[inner], tree.threshold[inner])
        yield first, last
    if (found := _columns(part, features, "mean_", "scale_")) is not None:
        mean, scale = found
        yield mean - 2 * scale, mean + 2 * scale
    if (found := _columns(part, features, "data_min_", "data_max_")) is not None:
        yield found


def _columns(part: Any, features: int, *names: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Gives two attributes that have a number for each column; None: it has none such."""
    first, last = (np.asarray(getattr(part, name, 0.0)) for name in names)
    return (first, last) if first.shape == last.shape == (features,) else None


def _difference(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """Gives the largest difference, relative where what is expected is beyond 1; of labels, the share that differs."""
    if expected.dtype.kind not in "biuf" or got.dtype.kind not in "biuf":
        return float(np.mean(expected.astype(str).ravel() != got.astype(str).ravel()))
    if expected.size != got.size:
        return float("inf")
    got = got.reshape(expected.shape)  # regressors give a column
    if expected.dtype.kind != "f":
        return float(np.mean(expected != got))
    scale = np.maximum(1.0, np.abs(expected))
    return float(np.max(np.abs(expected - got) / scale, initial=0.0))
