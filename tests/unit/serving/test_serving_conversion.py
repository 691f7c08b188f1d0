"""scikit-learn as ONNX: the same numbers, or a refusal that says how far they are apart."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from mlmesh_kit.errors import FailedPrecondition
from mlmesh_serving.predictors.base import Predictor
from mlmesh_serving.predictors.conversion import synthetic_rows
from mlmesh_serving.predictors.formats import FORMATS
from mlmesh_serving.predictors.options import PredictorOptions
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import TensorInfo
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeRegressor

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


def load(folder: Path, model: Any, **options: Any) -> Predictor:
    joblib.dump(model, folder / "model.joblib")
    found = LocalModel(folder, "", "", True, "model.storageUri")
    return FORMATS["sklearn"](found, PredictorOptions(convert_to="onnx", **options))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_a_pipeline_gives_the_same_by_each_method(tmp_path, method):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X * 1000, Y)
    predictor = load(tmp_path, model, method=method)
    (result,) = predictor.predict({"input": X * 1000}).values()
    assert np.allclose(result, getattr(model, method)(X * 1000), atol=1e-4)
    assert predictor.platform == "onnx_onnxv1" and predictor.outputs[0].name == method
    assert predictor.inputs == [TensorInfo("input", "FP64", (-1, 4))] and predictor.keeps_rows


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (RandomForestClassifier(10, random_state=0), "predict_proba"),
        (GradientBoostingClassifier(n_estimators=3, random_state=0), "predict_proba"),
        (make_pipeline(MinMaxScaler(), LogisticRegression()), "predict"),
    ],
)
def test_other_classifiers(tmp_path, model, method):
    model.fit(X, NAMES)
    (result,) = load(tmp_path, model, method=method).predict({"input": X}).values()
    expected = getattr(model, method)(X)
    assert np.array_equal(result, expected) if method == "predict" else np.allclose(result, expected, atol=1e-4)


def test_regressors_and_transformers(tmp_path):
    forest = RandomForestRegressor(5, random_state=0).fit(X, X[:, 0])
    (result,) = load(tmp_path, forest).predict({"input": X}).values()
    assert np.allclose(np.ravel(result), forest.predict(X), atol=1e-4)
    scaler = StandardScaler().fit(X)
    (result,) = load(tmp_path, scaler, method="transform").predict({"input": X}).values()
    assert np.allclose(result, scaler.transform(X), atol=1e-4)


def test_a_model_that_needs_more_than_32_bits_is_refused_with_the_figure(tmp_path):
    far = make_pipeline(StandardScaler(), LinearRegression()).fit(X + 1e9, Y)
    with pytest.raises(FailedPrecondition, match=r"what predict gives differs by \d\S* on 1000 .*tolerance is 0.0001"):
        load(tmp_path, far)
    assert load(tmp_path, LinearRegression().fit(X, Y)).platform == "onnx_onnxv1"
    with pytest.raises(FailedPrecondition, match="differs by"):
        load(tmp_path, LinearRegression().fit(X, Y), tolerance=0.0)


def test_labels_that_differ_are_counted(tmp_path):
    far = make_pipeline(StandardScaler(), LogisticRegression()).fit(X + 1e9, NAMES)
    with pytest.raises(FailedPrecondition, match=r"what predict gives differs by 0\.\d+ on"):
        load(tmp_path, far)


class Odd(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, data: Any, target: Any) -> "Odd":
        self.classes_, self.n_features_in_ = np.unique(target), data.shape[1]
        return self

    def predict(self, data: Any) -> Any:
        return np.zeros(len(data), int)


@pytest.mark.parametrize(
    ("model", "method", "message"),
    [
        (Odd().fit(X, Y), "predict", "Odd cannot be converted to ONNX"),
        (
            make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(X, Y),
            "predict",
            "cannot be converted",
        ),
        (LinearRegression().fit(X, Y), "predict_proba", "has no predict_proba"),
        (LogisticRegression(max_iter=500).fit(X, Y), "predict_log_proba", "has no predict_log_proba that can be"),
    ],
)
def test_what_cannot_be_converted(tmp_path, monkeypatch, model, method, message):
    if isinstance(model, Odd):
        monkeypatch.setattr(joblib, "load", lambda _: model)
    with pytest.raises(FailedPrecondition, match=message):
        load(tmp_path, model, method=method)


def test_rows_are_drawn_from_where_the_model_says_that_data_lie():
    tree = DecisionTreeRegressor(random_state=0).fit(X * [1, 100, 1, 1], X[:, 1])
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X + 5000, Y)
    bounded = MinMaxScaler().fit(X - 300)
    for model, column, value in ((tree, 1, 300), (scaled, 0, 5005), (bounded, 2, -296)):
        rows = synthetic_rows(model, 4)
        assert rows.shape == (1000, 4) and rows[:, column].min() < value < rows[:, column].max()
    assert np.array_equal(synthetic_rows(tree, 4), synthetic_rows(tree, 4))
