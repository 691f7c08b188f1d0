"""Methods of explaining, against what can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unimplemented
from mlmesh_serving.explainers.importance import PermutationImportance
from mlmesh_serving.explainers.occlusion import Occlusion
from mlmesh_serving.explainers.plan import plan_explainer
from mlmesh_serving.explainers.shapley import Shapley
from mlmesh_serving.manifest import Feature, parse_manifest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from support.predicting_backend import by_columns

patient = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a machine may be busy

RANDOM = np.random.default_rng(0)
BACKGROUND = RANDOM.normal(size=(40, 4))
ROWS = RANDOM.normal(size=(3, 4)) * 2
WEIGHTS = np.array([1.0, -2.0, 0.0, 0.5])


def linear(rows):
    return (rows @ WEIGHTS + 3.0).reshape(-1, 1)


ANALYTIC = WEIGHTS * (ROWS - BACKGROUND.mean(axis=0))
"""Shapley values of a linear model of independent features: coefficient times distance from the mean."""


@pytest.fixture(scope="module")
def fitted():
    target = BACKGROUND @ WEIGHTS + 3.0
    return {
        "linear": LinearRegression().fit(BACKGROUND, target),
        "forest": RandomForestRegressor(10, random_state=0).fit(BACKGROUND, target),
        "classes": RandomForestClassifier(10, random_state=0).fit(BACKGROUND, np.digitize(target, [2, 4])),
        "logistic": LogisticRegression().fit(BACKGROUND, target > 3),
    }


def check_additive(found):
    together = found["values"].sum(axis=1) + found["base_values"]
    assert together.shape == found["predictions"].shape
    np.testing.assert_allclose(together, found["predictions"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["kernel", "permutation"])
def test_black_box_shapley_values_of_a_linear_model_are_the_analytic_ones(algorithm):
    found = Shapley(algorithm, BACKGROUND, None, 0).explain(ROWS, linear, {})
    np.testing.assert_allclose(found["values"][:, :, 0], ANALYTIC, atol=1e-6)
    np.testing.assert_allclose(found["base_values"], [linear(BACKGROUND).mean()], atol=1e-9)
    assert found["method"] == f"shap.{algorithm}"


def test_the_linear_algorithm_gives_the_analytic_values(fitted):
    predict = by_columns(fitted["linear"].predict)
    found = Shapley("linear", BACKGROUND, fitted["linear"], 0).explain(ROWS, predict, {})
    np.testing.assert_allclose(found["values"][:, :, 0], ANALYTIC, atol=1e-6)


@patient
@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from(["kernel", "permutation"]))
def test_values_and_base_add_up_whatever_the_model(seed, outputs, algorithm):
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(3, 5)), random.normal(size=(5, outputs))

    def model(rows):
        return np.tanh(rows @ first) @ second + rows[:, :1] * rows[:, 1:2]

    found = Shapley(algorithm, random.normal(size=(5, 3)), None, 0).explain(random.normal(size=(2, 3)), model, {})
    assert found["values"].shape == (2, 3, outputs)
    check_additive(found)


@pytest.mark.parametrize(
    ("model", "method", "chosen"),
    [
        ("linear", "predict", "shap.linear"),
        ("forest", "predict", "shap.tree"),
        ("classes", "predict_proba", "shap.tree"),
        ("classes", "predict", "shap.permutation"),  # labels are not what the trees add up to
        ("logistic", "predict_proba", "shap.permutation"),  # nor probabilities what a linear margin is
    ],
)
def test_auto_looks_into_the_model_only_where_that_explains_what_is_answered(fitted, model, method, chosen):
    predict = by_columns(getattr(fitted[model], method))
    found = Shapley("auto", BACKGROUND, fitted[model], 0).explain(ROWS, predict, {})
    assert found["method"] == chosen
    check_additive(found)


def test_the_same_question_gets_the_same_answer():
    def model(rows):
        return (rows.prod(axis=1) > 0).astype(float).reshape(-1, 1)

    for algorithm in ("kernel", "permutation"):
        first, second = (Shapley(algorithm, BACKGROUND, None, 12).explain(ROWS, model, {}) for _ in range(2))
        assert np.array_equal(first["values"], second["values"])


def test_occlusion_of_a_linear_model_is_its_shapley_values():
    found = Occlusion(BACKGROUND).explain(ROWS, linear, {})
    np.testing.assert_allclose(found["values"][:, :, 0], ANALYTIC, atol=1e-9)


def test_occlusion_of_features_that_stand_in_for_each_other_shows_neither():
    def either(rows):
        return rows[:, :2].max(axis=1).reshape(-1, 1)

    found = Occlusion(np.ones((2, 3))).explain(np.ones((1, 3)), either, {})
    assert not found["values"].any()


def test_importance_is_what_a_permutation_costs():
    rows = np.random.default_rng(1).normal(size=(4000, 3))
    found = PermutationImportance(3, "squared").explain(rows, lambda r: r[:, :1] * 2.0, {})
    # E[(2 x - 2 x')^2] of independent x and x' is 8 var(x).
    assert found["importances"][0] == pytest.approx(8.0, rel=0.1)
    assert found["importances"][1:].tolist() == [0.0, 0.0]
    assert found["baseline"] == 0.0


def test_importance_with_targets_is_measured_by_them():
    rows = np.random.default_rng(1).normal(size=(50, 2))
    targets = (rows[:, 0] > 0).astype(int)
    found = PermutationImportance(5, "zero-one").explain(
        rows, lambda r: (r[:, :1] > 0).astype(float), {"targets": targets.tolist()}
    )
    assert found["baseline"] == 0.0
    assert 0.3 < found["importances"][0] < 0.7 and found["importances"][1] == 0.0
    with pytest.raises(InvalidArgument, match="targets"):
        PermutationImportance(5, "squared").explain(rows, linear_of_two, {"targets": [1]})
    with pytest.raises(InvalidArgument, match="at least two"):
        PermutationImportance(5, "squared").explain(rows[:1], linear_of_two, {})


def linear_of_two(rows):
    return rows[:, :1]


@pytest.mark.parametrize("explainer", [Occlusion(BACKGROUND), Shapley("kernel", BACKGROUND, None, 0)])
def test_instances_of_other_features_are_refused(explainer):
    with pytest.raises(InvalidArgument, match="must have 4 features, got 2"):
        explainer.explain(np.ones((1, 2)), linear, {})


def test_a_model_that_cannot_be_looked_into_is_refused():
    with pytest.raises(FailedPrecondition, match="tree cannot look into this model"):
        Shapley("tree", BACKGROUND, object(), 0)


def manifest(explainer, **spec):
    return parse_manifest(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "m"},
            "spec": {
                "predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///m"}},
                "explainer": explainer,
                **spec,
            },
        },
        frozenset({"sklearn"}),
        frozenset(Feature),
    )


def test_a_plan_has_what_the_manifest_says():
    plan = plan_explainer(
        manifest(
            {"shap": {"storageUri": "file:///b", "config": {"algorithm": "tree", "featureNames": ["a", "b"]}}},
            inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        )
    )
    assert (plan.method, plan.algorithm, plan.background, plan.model) == ("shap", "tree", "file:///b", "file:///m")
    assert (plan.input_name, plan.input_datatype, plan.feature_names) == ("x", "FP32", ("a", "b"))
    assert type(plan).from_message(plan.message()) == plan
    python = plan_explainer(manifest({"python": {"class": "mine:Explain", "storageUri": "file:///c"}}))
    assert (python.method, python.target, python.code) == ("python", "mine:Explain", "file:///c")


STAGE = {"python": {"class": "a:B", "storageUri": "file:///s"}}


@pytest.mark.parametrize(
    ("explainer", "spec", "field"),
    [
        ({"shap": {}}, {}, "shap.storageUri"),
        ({"occlusion": {}}, {}, "occlusion.storageUri"),
        ({"shap": {"storageUri": "file:///b", "config": {"algorithm": "deep"}}}, {}, "config.algorithm"),
        ({"shap": {"storageUri": "file:///b", "config": {"repeats": 1}}}, {}, "config.repeats"),
        ({"permutation": {"config": {"loss": "hinge"}}}, {}, "config.loss"),
        ({"permutation": {"config": {"maxInstances": 0}}}, {}, "config.maxInstances"),
        ({"shap": {"config": {"algorithm": "tree"}}}, {"preprocessor": STAGE}, "config.algorithm"),
    ],
)
def test_wrong_explainers_are_named(explainer, spec, field):
    with pytest.raises(InvalidArgument) as refused:
        plan_explainer(manifest(explainer, **spec))
    assert refused.value.violations[0][0].endswith(field)


def test_an_explainer_elsewhere_is_no_workers():
    with pytest.raises(Unimplemented):
        plan_explainer(manifest({"remote": {"url": "http://explainer/"}}))


def test_the_model_is_not_looked_into_behind_stages():
    plan = plan_explainer(manifest({"shap": {"storageUri": "file:///b"}}, preprocessor=STAGE))
    assert (plan.algorithm, plan.model) == ("auto", "")
