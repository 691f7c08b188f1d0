"""Shapley values, by the library `shap` (Lundberg, Lee, "A unified approach to interpreting model predictions", 2017).

`auto` looks into the model where the library can (trees, linear models), and keeps that only if values and base add up
to what the predictor answers: a classifier's margin, say, is not its answer. Else the model is asked as a black box.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, ServiceError
from numpy.typing import NDArray

from mlmesh_serving.explainers.base import Explainer, Predict

logger = logging.getLogger(__name__)

_MAX_BACKGROUND = 100
_CHECKED_ROWS = 4


class Shapley(Explainer):
    """See the module.

    Args:
        algorithm: auto, tree, linear, kernel or permutation.
        background: Rows, shape (m, features); None: none (tree alone).
        model: The model itself; None: it may not be looked into.
        samples: Coalitions (kernel) or orders (permutation); 0: as the library has it.

    Raises:
        FailedPrecondition: The library is not installed, or cannot look into the model.
    """

    def __init__(self, algorithm: str, background: NDArray[Any] | None, model: Any, samples: int) -> None:
        try:
            import shap
        except ImportError as error:
            raise FailedPrecondition("the library shap is not installed: pip install mlmesh-serving[shap]") from error
        self._shap = shap
        self._algorithm = algorithm
        self._background = background
        if background is not None and len(background) > _MAX_BACKGROUND:
            chosen = np.random.default_rng(0).choice(len(background), _MAX_BACKGROUND, replace=False)
            self._background = background[np.sort(chosen)]
        self._model = model
        self._samples = samples
        if algorithm in {"tree", "linear"}:
            try:
                self._inner = self._look_inside(algorithm)
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
            values, base = self._of_model(self._inner, rows)
        else:
            values, base = self._of_black_box(rows, predict, known.shape[1])
        return {"method": f"shap.{self._algorithm}", "values": values, "base_values": base, "predictions": known}

    def _choose(self, predict: Predict) -> None:
        """Finds what to do, once, by trying it on the background."""
        assert self._background is not None
        rows = self._background[:_CHECKED_ROWS]
        known = predict(rows)
        for algorithm in ("tree", "linear") if self._model is not None else ():
            try:
                inner = self._look_inside(algorithm)
                values, base = self._of_model(inner, rows)
                together = values.sum(axis=1) + base
                if together.shape == known.shape and np.allclose(together, known, rtol=1e-3, atol=1e-4):
                    self._algorithm, self._inner = algorithm, inner
                    return
            except ServiceError:
                raise
            except Exception as error:  # the library's way to say that it does not know the model
                logger.info("shap's %s: %s: %s", algorithm, type(error).__name__, str(error)[:200])
        self._algorithm = "permutation"

    def _look_inside(self, algorithm: str) -> Any:
        if algorithm == "linear":
            return self._shap.LinearExplainer(self._model, self._background)
        if self._background is None:
            return self._shap.TreeExplainer(self._model)
        if hasattr(self._model, "predict_proba"):
            return self._shap.TreeExplainer(self._model, self._background, model_output="probability")
        return self._shap.TreeExplainer(self._model, self._background)

    def _of_model(self, inner: Any, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        found = inner.shap_values(rows, check_additivity=False) if _is_tree(inner) else inner.shap_values(rows)
        values = np.asarray(found, dtype=np.float64)
        values = values[:, :, None] if values.ndim == 2 else values
        return values, np.atleast_1d(np.asarray(inner.expected_value, dtype=np.float64))

    def _of_black_box(self, rows: NDArray[Any], predict: Predict, outputs: int) -> tuple[NDArray[Any], NDArray[Any]]:
        np.random.seed(0)  # the library's own; the same question gets the same answer
        if self._algorithm == "kernel":
            inner = self._shap.KernelExplainer(predict, self._background)
            options = {"nsamples": self._samples} if self._samples else {}
            found = inner.shap_values(rows, silent=True, l1_reg=False, **options)
            values = np.asarray(found, dtype=np.float64).reshape(*rows.shape, outputs)
            return values, np.atleast_1d(np.asarray(inner.expected_value, dtype=np.float64))
        masker = self._shap.maskers.Independent(self._background, max_samples=_MAX_BACKGROUND)
        inner = self._shap.PermutationExplainer(predict, masker, seed=0)
        orders = self._samples or 10
        found = inner(rows, max_evals=orders * (2 * rows.shape[1] + 1), silent=True)
        values = np.asarray(found.values, dtype=np.float64).reshape(*rows.shape, outputs)
        return values, np.asarray(found.base_values, dtype=np.float64).reshape(len(rows), outputs)[0]


def _is_tree(inner: Any) -> bool:
    return type(inner).__name__ in {"TreeExplainer", "Tree"}
