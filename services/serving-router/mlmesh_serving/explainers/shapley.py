"""Shapley values (Lundberg, Lee, "A unified approach to interpreting model predictions", NeurIPS 2017).

`tree`, `linear` and `kernel` are those of the library `shap`; `permutation` is our own (`sampling`) and needs none.
`auto` looks into the model where the library can (trees, linear models), and keeps that only if values and base add up
to what the predictor answers: a classifier's margin, say, is not its answer. Else it is `permutation`.
"""

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from numpy.typing import NDArray

from mlmesh_serving.explainers.base import Explainer, Predict
from mlmesh_serving.explainers.sampling import sampled_shapley

logger = logging.getLogger(__name__)

_MAX_BACKGROUND = 100
_CHECKED_ROWS = 4

Values = tuple[NDArray[Any], NDArray[Any]]


class Shapley(Explainer):
    """See the module.

    Args:
        algorithm: auto, tree, linear, kernel or permutation.
        background: Rows, shape (m, features), of which at most 100 are used; None: none (tree alone).
        model: The model itself; None: it may not be looked into.
        samples: Coalitions (kernel) or orders (permutation); 0: a default.

    Raises:
        FailedPrecondition: The library is not installed, or cannot look into the model.
    """

    def __init__(self, algorithm: str, background: NDArray[Any] | None, model: Any, samples: int) -> None:
        self._algorithm = algorithm
        self._background = background
        if background is not None and len(background) > _MAX_BACKGROUND:
            chosen = np.random.default_rng(0).choice(len(background), _MAX_BACKGROUND, replace=False)
            self._background = background[np.sort(chosen)]
        self._model = model
        self._samples = samples
        if algorithm == "kernel":
            _library()
        elif algorithm == "auto" and model is not None:
            with contextlib.suppress(FailedPrecondition):  # importing takes seconds: now, and not in a request
                _library()
        if algorithm in {"tree", "linear"}:
            try:
                self._inner = self._look_inside(algorithm)
            except FailedPrecondition:
                raise
            except Exception as error:
                raise FailedPrecondition(
                    f"{algorithm} cannot look into this model: {type(error).__name__}: {str(error)[:300]}"
                ) from error

    def explain(self, rows: NDArray[Any], predict: Predict, body: Mapping[str, Any]) -> dict[str, Any]:
        """See Explainer. `values` (n, features, outputs) and `base_values` (outputs,) add up to what is explained."""
        if self._background is not None and rows.shape[1] != self._background.shape[1]:
            wanted = self._background.shape[1]
            raise InvalidArgument(f"must have {wanted} features, got {rows.shape[1]}", field="instances")
        if self._algorithm == "auto":
            self._choose(predict)
        known = predict(rows)
        if self._algorithm in {"tree", "linear"}:
            values, base = _of_model(self._inner, rows)
        elif self._algorithm == "kernel":
            values, base = self._of_kernel(rows, predict, known.shape[1])
        else:
            assert self._background is not None
            values, base = sampled_shapley(rows, known, self._background, predict, self._samples)
        return {"method": f"shap.{self._algorithm}", "values": values, "base_values": base, "predictions": known}

    def _choose(self, predict: Predict) -> None:
        """Finds what to do, once, by trying it on the background."""
        assert self._background is not None
        rows = self._background[:_CHECKED_ROWS]
        known = predict(rows)
        for algorithm in ("tree", "linear") if self._model is not None else ():
            try:
                inner = self._look_inside(algorithm)
                values, base = _of_model(inner, rows)
            except Exception as error:  # the library's way to say that it does not know the model
                logger.info("shap's %s: %s: %s", algorithm, type(error).__name__, str(error)[:200])
                continue
            together = values.sum(axis=1) + base
            if together.shape == known.shape and np.allclose(together, known, rtol=1e-3, atol=1e-4):
                self._algorithm, self._inner = algorithm, inner
                return
        self._algorithm = "permutation"

    def _look_inside(self, algorithm: str) -> Any:
        shap = _library()
        if algorithm == "linear":
            return shap.LinearExplainer(self._model, self._background)
        if self._background is None:
            return shap.TreeExplainer(self._model)
        if hasattr(self._model, "predict_proba"):
            return shap.TreeExplainer(self._model, self._background, model_output="probability")
        return shap.TreeExplainer(self._model, self._background)

    def _of_kernel(self, rows: NDArray[Any], predict: Predict, outputs: int) -> Values:
        np.random.seed(0)  # the library draws from numpy's own; the same question gets the same answer
        inner = _library().KernelExplainer(predict, self._background)
        options = {"nsamples": self._samples} if self._samples else {}
        found = inner.shap_values(rows, silent=True, l1_reg=False, **options)
        values = np.asarray(found, dtype=np.float64).reshape(*rows.shape, outputs)
        return values, np.atleast_1d(np.asarray(inner.expected_value, dtype=np.float64))


def _library() -> Any:
    try:
        import shap
    except ImportError as error:
        raise FailedPrecondition(
            "the library shap is not installed (pip install mlmesh-serving[shap]); permutation needs none"
        ) from error
    return shap


def _of_model(inner: Any, rows: NDArray[Any]) -> Values:
    is_tree = type(inner).__name__ in {"TreeExplainer", "Tree"}
    found = inner.shap_values(rows, check_additivity=False) if is_tree else inner.shap_values(rows)
    values = np.asarray(found, dtype=np.float64)
    values = values[:, :, None] if values.ndim == 2 else values
    return values, np.atleast_1d(np.asarray(inner.expected_value, dtype=np.float64))
