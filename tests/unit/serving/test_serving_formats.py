"""Each model format, with a small model of the real library: what is served is what the library itself answers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_serving.predictors import FORMAT_NAMES
from mlmesh_serving.predictors.base import Predictor, bind
from mlmesh_serving.predictors.formats import FORMATS
from mlmesh_serving.predictors.options import METHODS, VERSIONS, PredictorOptions, parse_options
from mlmesh_serving.storage import LocalModel
from mlmesh_serving.tensor import Tensor, TensorInfo
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

IRIS, SPECIES = load_iris(return_X_y=True)
CANCER, MALIGNANT = load_breast_cancer(return_X_y=True)


def local(path: Path, *, code: bool = True) -> LocalModel:
    return LocalModel(path, path.as_uri(), "", code, "model.storageUri")


def load(name: str, path: Path, *, code: bool = True, **options: Any) -> Predictor:
    return FORMATS[name](local(path, code=code), PredictorOptions(**options))


def answer(predictor: Predictor, data: np.ndarray) -> np.ndarray:
    (result,) = predictor.predict({"input": data}).values()
    return np.asarray(result)


def refused(name: str, path: Path, match: str, **options: Any) -> None:
    with pytest.raises(FailedPrecondition, match=match):
        load(name, path, **options)


# scikit-learn


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_sklearn_answers_by_each_method(tmp_path, method):
    model = LogisticRegression(max_iter=500).fit(IRIS, SPECIES)
    joblib.dump(model, tmp_path / "model.joblib")
    predictor = load("sklearn", tmp_path, method=method)
    assert np.array_equal(answer(predictor, IRIS), getattr(model, method)(IRIS))
    assert predictor.inputs == [TensorInfo("input", "FP64", (-1, 4))] and predictor.outputs[0].name == method
    assert predictor.keeps_rows and not load("sklearn", tmp_path, keeps_rows=False).keeps_rows


def test_probabilities_of_several_targets_are_several_tensors(tmp_path):
    targets = np.column_stack([SPECIES, SPECIES > 0])
    model = RandomForestClassifier(5, n_jobs=2, random_state=0).fit(IRIS, targets)
    joblib.dump(model, tmp_path / "model.pkl")
    predictor = load("sklearn", tmp_path, method="predict_proba")
    results = predictor.predict({"x": IRIS})
    assert list(results) == ["predict_proba_0", "predict_proba_1"] == [info.name for info in predictor.outputs]
    for result, expected in zip(results.values(), model.predict_proba(IRIS), strict=True):
        assert np.array_equal(result, expected)


def test_sklearn_is_told_its_threads(tmp_path):
    from threadpoolctl import threadpool_info, threadpool_limits

    joblib.dump(RandomForestClassifier(3, n_jobs=-1).fit(IRIS, SPECIES), tmp_path / "model.joblib")
    with threadpool_limits():
        predictor: Any = load("sklearn", tmp_path, threads=1)
        assert predictor._call.__self__.n_jobs == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}


def test_a_pickle_is_loaded_only_where_code_may_be(tmp_path):
    joblib.dump(LinearRegression().fit(IRIS, SPECIES), tmp_path / "model.joblib")
    for name in ("sklearn", "xgboost", "lightgbm"):
        refused(name, tmp_path, "MLMESH_SERVING_PICKLE_ROOTS", code=False)


# XGBoost


@pytest.fixture(scope="module")
def xgb_model() -> Any:
    import xgboost

    return xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(IRIS, SPECIES)


@pytest.fixture(scope="module")
def xgb_binary() -> Any:
    import xgboost

    return xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(CANCER, MALIGNANT)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["json", "ubj", "bst"])
def test_xgboost_answers_as_its_booster(tmp_path, xgb_model, suffix):
    import xgboost

    booster = xgb_model.get_booster()
    booster.save_model(tmp_path / f"model.{suffix}")
    expected = booster.predict(xgboost.DMatrix(IRIS))
    predictor = load("xgboost", tmp_path, code=False)
    assert np.array_equal(answer(predictor, IRIS), expected)
    assert (predictor.platform, predictor.keeps_rows) == ("xgboost", True)
    assert predictor.inputs == [TensorInfo("input", "FP32", (-1, 4))]
    assert predictor.outputs == [TensorInfo("predict", "FP32", (-1, 3))]
    assert answer(predictor, IRIS[:0]).shape == (0, 3)


def test_xgboost_probabilities_margins_and_pickles(tmp_path, xgb_binary):
    xgb_binary.save_model(tmp_path / "model.json")
    proba = answer(load("xgboost", tmp_path, method="predict_proba"), CANCER)
    assert np.allclose(proba, xgb_binary.predict_proba(CANCER), atol=1e-7)
    margin = answer(load("xgboost", tmp_path, method="decision_function"), CANCER)
    assert np.allclose(margin, xgb_binary.predict(CANCER, output_margin=True))
    (tmp_path / "pickled").mkdir()
    joblib.dump(xgb_binary, tmp_path / "pickled" / "model.pkl")
    pickled = load("xgboost", tmp_path / "pickled", method="predict")
    assert np.array_equal(answer(pickled, CANCER), xgb_binary.predict(CANCER)) and pickled.platform == "xgboost"


def test_xgboost_linear_models_and_regression(tmp_path):
    import xgboost

    matrix = xgboost.DMatrix(IRIS, IRIS[:, 0])
    booster = xgboost.train({"booster": "gblinear", "nthread": 1}, matrix, 3)
    booster.save_model(tmp_path / "model.ubj")
    assert np.allclose(answer(load("xgboost", tmp_path), IRIS), booster.predict(matrix))
    refused("xgboost", tmp_path, "no predict_proba", method="predict_proba")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\0" * 100, b"[]", b'{"a": 1}', b'{"learner": {}}', b"{L", b"{i\x7f", b"binf" * 50, b"{" * 500],
)
def test_what_is_no_xgboost_model(tmp_path, content):
    (tmp_path / "model.ubj").write_bytes(content)
    refused("xgboost", tmp_path, "model.ubj is no model of XGBoost", code=False)


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_an_xgboost_model_that_is_cut_off_anywhere(tmp_path, xgb_model, form):
    whole = bytes(xgb_model.get_booster().save_raw(form))
    for cut in np.linspace(1, len(whole) - 1, 25, dtype=int):
        (tmp_path / f"model.{form}").write_bytes(whole[:cut])
        refused("xgboost", tmp_path, "is no model of XGBoost", code=False)


# LightGBM


@pytest.fixture(scope="module")
def lgb_models() -> Any:
    import lightgbm

    settings = {"n_estimators": 5, "num_leaves": 7, "n_jobs": 1, "verbose": -1}
    return (
        lightgbm.LGBMClassifier(**settings).fit(IRIS, SPECIES),
        lightgbm.LGBMClassifier(**settings).fit(CANCER, MALIGNANT),
        lightgbm.LGBMRegressor(**settings).fit(IRIS, IRIS[:, 0]),
    )


@pytest.mark.parametrize("suffix", ["txt", "bst"])
def test_lightgbm_answers_as_its_booster(tmp_path, lgb_models, suffix):
    booster = lgb_models[0].booster_
    booster.save_model(tmp_path / f"model.{suffix}")
    predictor = load("lightgbm", tmp_path, code=False)
    assert np.array_equal(answer(predictor, IRIS), booster.predict(IRIS))
    assert predictor.inputs == [TensorInfo("input", "FP64", (-1, 4))]
    assert predictor.outputs == [TensorInfo("predict", "FP64", (-1, 3))]
    assert answer(predictor, IRIS[:0]).shape == (0, 3)


def test_lightgbm_probabilities_scores_and_pickles(tmp_path, lgb_models):
    _, binary, regressor = lgb_models
    binary.booster_.save_model(tmp_path / "model.txt")
    assert np.array_equal(
        answer(load("lightgbm", tmp_path, method="predict_proba"), CANCER), binary.predict_proba(CANCER)
    )
    scores = answer(load("lightgbm", tmp_path, method="decision_function"), CANCER)
    assert np.array_equal(scores, binary.predict(CANCER, raw_score=True))
    for name, model in (("booster", binary.booster_), ("classifier", binary)):
        (tmp_path / name).mkdir()
        joblib.dump(model, tmp_path / name / "model.pkl")
        assert np.array_equal(answer(load("lightgbm", tmp_path / name), CANCER), model.predict(CANCER))
    regressor.booster_.save_model(tmp_path / "model.txt")
    refused("lightgbm", tmp_path, "no predict_proba", method="predict_proba")


@pytest.mark.parametrize("content", [b"", b"tree\n", b"\xff\xfe", b"tree\nend of trees\n", b"tree\nx\nend of trees\n"])
def test_what_is_no_lightgbm_model(tmp_path, content):
    (tmp_path / "model.txt").write_bytes(content)
    refused("lightgbm", tmp_path, "no model of LightGBM", code=False)


def test_a_lightgbm_model_that_is_cut_off_anywhere(tmp_path, lgb_models):
    whole = lgb_models[0].booster_.model_to_string()
    for cut in np.linspace(1, whole.index("end of trees"), 25, dtype=int):
        (tmp_path / "model.txt").write_text(whole[:cut])
        refused("lightgbm", tmp_path, "cut off", code=False)


# ONNX


def graph(*inputs: Any, shapes: Any = (["n", 2],) * 3, kind: int = 1, op: str = "Sum") -> bytes:
    """Gives a model that sums its inputs."""
    from onnx import helper

    names = inputs or ("a", "b")
    given = [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in zip(names, shapes, strict=False)]
    out = helper.make_tensor_value_info("total", kind, list(shapes[-1]))
    made = helper.make_graph([helper.make_node(op, list(names), ["total"])], "g", given, [out])
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString())


def test_onnx_takes_several_tensors_by_name(tmp_path):
    (tmp_path / "model.onnx").write_bytes(graph("a", "b"))
    predictor = load("onnx", tmp_path, code=False)
    assert [str(info) for info in predictor.inputs] == ["'a' (FP32 [-1, 2])", "'b' (FP32 [-1, 2])"]
    assert (predictor.platform, predictor.keeps_rows) == ("onnx_onnxv1", True)
    a, b = np.ones((3, 2)), np.arange(6).reshape(3, 2)  # as JSON gives them: 64 bits
    arrays = bind([Tensor("b", b), Tensor("a", a)], predictor.inputs, "got")
    assert np.array_equal(predictor.predict(arrays)["total"], (a + b).astype(np.float32))
    for tensors in ([Tensor("a", a)], [Tensor("a", a), Tensor("c", b)], [Tensor("a", a), Tensor("b", a[:, :1])]):
        with pytest.raises(InvalidArgument):
            bind(tensors, predictor.inputs, "got")
    with pytest.raises(ValueError, match="must be float32"):
        predictor.predict({"a": a, "b": np.array([[b"x", b"y"]], dtype=object)})


def test_onnx_integers_must_fit_and_floats_are_none(tmp_path):
    (tmp_path / "model.onnx").write_bytes(graph("a", kind=6, op="Neg"))
    predictor = load("onnx", tmp_path)
    assert np.array_equal(answer(predictor, np.array([[1, 2]])), [[-1, -2]])
    for data, message in ((np.array([[1 << 40, 2]]), "does not fit"), (np.array([[0.5, 1.0]]), "must be int32")):
        with pytest.raises(ValueError, match=message):
            answer(predictor, data)


@pytest.mark.parametrize(
    ("shapes", "keeps"),
    [
        ([["n", 2]] * 3, True),
        ([[None, 2]] * 3, True),
        ([["n", 2], ["m", 2], [None, 2]], False),
        ([[3, 2]] * 3, False),
        ([[]] * 3, False),
    ],
)
def test_onnx_says_whether_it_keeps_rows(tmp_path, shapes, keeps):
    (tmp_path / "model.onnx").write_bytes(graph("a", "b", shapes=shapes))
    assert load("onnx", tmp_path).keeps_rows is keeps
    assert load("onnx", tmp_path, keeps_rows=not keeps).keeps_rows is not keeps


def test_onnx_text(tmp_path):
    from onnx import TensorProto

    (tmp_path / "model.onnx").write_bytes(graph("a", kind=TensorProto.STRING, op="Identity"))
    predictor = load("onnx", tmp_path)
    data = np.array([[b"caf\xc3\xa9", b""]], dtype=object)
    assert answer(predictor, data).tolist() == [["café", ""]] and predictor.inputs[0].datatype == "BYTES"
    with pytest.raises(ValueError, match="utf-8"):
        answer(predictor, np.array([[b"\xff", b""]], dtype=object))


def test_onnx_weights_outside_the_folder_are_not_read(tmp_path):
    import onnx

    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(2, dtype=np.float32).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inside.bin").write_bytes(secret.read_bytes())
    for location in ("inside.bin", "../secret.bin", str(secret)):
        model = onnx.load_from_string(graph("a", "w"))
        del model.graph.input[1]
        weights = model.graph.initializer.add(name="w", data_type=1, data_location=1, dims=[2])
        for key, value in {"location": location, "offset": "0", "length": "8"}.items():
            weights.external_data.add(key=key, value=value)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        if location == "inside.bin":
            assert answer(load("onnx", folder), np.zeros((1, 2))).tolist() == [[0, 1]]
        else:
            refused("onnx", folder, "cannot be loaded")


@pytest.mark.parametrize("content", [b"", b"abc", b"\x08\x09" + b"\xff" * 50, graph()[:40]])
def test_what_is_no_onnx_model(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    refused("onnx", tmp_path, "model.onnx cannot be loaded", code=False)


# Python classes

CODE = """
from pathlib import Path
import numpy as np

class Scale:
    keeps_rows = True
    def __init__(self, factor: float = 1.0):
        self.factor = factor
    def load(self, folder: Path) -> None:
        self.offset = np.load(folder / "offset.npy")
    def predict(self, data: np.ndarray) -> np.ndarray:
        return data * self.factor + self.offset

class Both:
    def predict(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"sum": tensors["a"] + tensors["b"], "first": tensors["a"]}

class Typed:
    def predict(self, data: str) -> str:
        return data

class Async:
    async def predict(self, data: np.ndarray) -> np.ndarray:
        return data

class Broken:
    def __init__(self):
        raise RuntimeError("no weights")

class Mute: ...

def function(data): ...
"""


@pytest.fixture
def code(tmp_path) -> Path:
    (tmp_path / "models.py").write_text(CODE)
    np.save(tmp_path / "offset.npy", np.array([1.0, 2.0]))
    return tmp_path


def test_python_classes(code):
    predictor = load("python", code, target="models:Scale", config={"factor": 2.0})
    assert answer(predictor, np.ones((2, 2))).tolist() == [[3, 4]] * 2 and predictor.keeps_rows
    both = load("python", code, target="models:Both")
    results = both.predict({"a": np.ones(2), "b": np.ones(2)})
    assert (list(results), results["sum"].tolist(), both.keeps_rows) == (["sum", "first"], [2, 2], False)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("models:Typed", "must take a numpy array or a dict"),
        ("models:Async", "must not be async"),
        ("models:Broken", "RuntimeError: no weights"),
        ("models:Mute", "cannot be called"),
        ("models:function", "is no class"),
        ("models:None_", "has no None_"),
        ("other:Scale", "no module other"),
    ],
)
def test_python_classes_that_are_refused(code, target, message):
    refused("python", code, message, target=target)
    refused("python", code, "MLMESH_SERVING_PICKLE_ROOTS", target=target, code=False)


# MLflow


def mlmodel(folder: Path, flavors: str) -> Path:
    (folder / "MLmodel").write_text(f"artifact_path: model\nflavors:\n{flavors}\nmodel_uuid: x\n")
    return folder


def test_mlflow_models_are_read_without_mlflow(tmp_path, xgb_model, lgb_models):
    folders = {name: tmp_path / name for name in ("sklearn", "xgboost", "labels", "lightgbm", "onnx")}
    for folder in folders.values():
        folder.mkdir()
    linear = LogisticRegression(max_iter=500).fit(IRIS, SPECIES)
    joblib.dump(linear, folders["sklearn"] / "model.pkl")
    mlmodel(
        folders["sklearn"], "  python_function: {loader_module: mlflow.sklearn}\n  sklearn: {pickled_model: model.pkl}"
    )
    booster = xgb_model.get_booster()
    for name in ("xgboost", "labels"):
        booster.save_model(folders[name] / "model.ubj")
    mlmodel(folders["xgboost"], "  xgboost: {data: model.ubj, model_class: xgboost.core.Booster}")
    mlmodel(folders["labels"], "  xgboost: {data: model.ubj, model_class: xgboost.sklearn.XGBClassifier}")
    lgb_models[0].booster_.save_model(folders["lightgbm"] / "model.lgb")
    mlmodel(folders["lightgbm"], "  lightgbm: {data: model.lgb, model_class: lightgbm.basic.Booster}")
    (folders["onnx"] / "model.onnx").write_bytes(graph("a", op="Neg"))
    mlmodel(folders["onnx"], "  onnx: {data: model.onnx}")
    expected = {
        "sklearn": linear.predict(IRIS),
        "xgboost": xgb_model.predict_proba(IRIS),
        "labels": xgb_model.predict(IRIS),
        "lightgbm": lgb_models[0].booster_.predict(IRIS),
    }
    for name, values in expected.items():
        assert np.array_equal(answer(load("mlflow", folders[name]), IRIS), values), name
    assert answer(load("mlflow", folders["onnx"]), IRIS[:, :2]).shape == (150, 2)
    refused("mlflow", folders["sklearn"], "MLMESH_SERVING_PICKLE_ROOTS", code=False)
    assert np.array_equal(answer(load("mlflow", folders["xgboost"], code=False), IRIS), expected["xgboost"])


@pytest.mark.parametrize(
    ("flavors", "message"),
    [
        ("  python_function: {loader_module: mlflow.pyfunc.model}", "needs mlflow, which is not installed"),
        ("  spark: {model_data: x}", "none of the flavours"),
        ("  sklearn: {}", "pickled_model must say a file"),
        ("  xgboost: {data: ../../secret.json}", "leads out of its folder"),
        ("  xgboost: {data: model.json}", "holds no 'model.json'"),
        ("  - 1", "has no flavors"),
        ("  a: &a [*a]", "MLmodel cannot be read"),
    ],
)
def test_mlflow_models_that_are_refused(tmp_path, flavors, message):
    refused("mlflow", mlmodel(tmp_path, flavors), message)


# What is common


@pytest.mark.parametrize(
    ("name", "files"), [("xgboost", []), ("xgboost", ["a.json", "b.ubj"]), ("onnx", ["a.txt"]), ("sklearn", ["m.onnx"])]
)
def test_a_folder_holds_one_model(tmp_path, name, files):
    for file in files:
        (tmp_path / file).write_text("{}")
    refused(name, tmp_path, "exactly one model file")
    if files:
        (tmp_path / "x.bin").touch()
        refused(name, tmp_path / "x.bin", r"must be one of \*\.")


@pytest.mark.parametrize(
    ("name", "library"), [("xgboost", "xgboost"), ("lightgbm", "lightgbm"), ("onnx", "onnxruntime")]
)
def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, name, library):
    import importlib

    def missing(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    suffix = {"xgboost": "json", "lightgbm": "txt", "onnx": "onnx"}[name]
    (tmp_path / f"model.{suffix}").write_text("{}")
    monkeypatch.setattr(importlib, "import_module", missing)
    refused(name, tmp_path, f"needs {library}, which is not installed: pip install {library}")


def test_options_are_read():
    model = {
        "modelFormat": {"name": "pytorch", "version": "2"}, "class": "nets:Net", "config": {"width": 4.0},
        "threads": 2.0, "keepsRows": True, "codeUri": "file:///nets", "sha256": "SHA256:" .lower() + "AB" * 32,
    }  # fmt: skip
    options = parse_options(model, "pytorch", "m")
    assert (options.target, options.threads, options.keeps_rows) == ("nets:Net", 2, True)
    assert (options.sha256, options.code_uri, options.config) == ("ab" * 32, "file:///nets", {"width": 4.0})
    assert parse_options({}, "onnx", "m") == PredictorOptions()


@pytest.mark.parametrize(
    ("name", "model", "field"),
    [
        ("onnx", {"method": "predict_proba"}, "m.method"),
        ("sklearn", {"method": "__class__"}, "m.method"),
        ("sklearn", {"modelFormat": {"name": "sklearn", "version": "9"}}, "m.modelFormat.version"),
        ("sklearn", {"modelFormat": {"name": "sklearn", "version": 1}}, "m.modelFormat.version"),
        ("sklearn", {"class": "a:B"}, "m.class"),
        ("python", {}, "m.class"),
        ("python", {"class": "os.system"}, "m.class"),
        ("python", {"class": "a:B", "config": {"a b": 1}}, "m.config"),
        ("python", {"class": "a:B", "config": [1]}, "m.config"),
        ("sklearn", {"threads": 0}, "m.threads"),
        ("sklearn", {"threads": 1.5}, "m.threads"),
        ("sklearn", {"threads": float("nan")}, "m.threads"),
        ("sklearn", {"threads": True}, "m.threads"),
        ("sklearn", {"keepsRows": "yes"}, "m.keepsRows"),
        ("sklearn", {"convertTo": "pmml"}, "m.convertTo"),
        ("xgboost", {"convertTo": "onnx"}, "m.convertTo"),
        ("sklearn", {"tolerance": -1}, "m.tolerance"),
        ("sklearn", {"tolerance": float("nan")}, "m.tolerance"),
        ("sklearn", {"sha256": "abc"}, "m.sha256"),
    ],
)
def test_options_that_are_wrong(name, model, field):
    with pytest.raises(InvalidArgument) as caught:
        parse_options(model, name, "m")
    assert field in caught.value.message


def test_tables_of_formats_name_formats():
    assert METHODS.keys() <= FORMATS.keys() and VERSIONS.keys() <= FORMATS.keys()


def test_the_router_knows_the_names_of_all_formats_without_importing_any():
    assert FORMATS.keys() == FORMAT_NAMES
    code = "import mlmesh_serving.server, sys; sys.exit(any(m in sys.modules for m in ('numpy', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
