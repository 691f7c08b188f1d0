"""The manifest of an InferenceService: what is understood, what is refused and how."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, ServiceError
from mlmesh_serving.manifest import (
    BatcherSpec,
    Feature,
    InferenceServiceSpec,
    LoggerMode,
    Protocol,
    ScaleMetric,
    ScalingSpec,
    parse_manifest,
)

FORMATS = frozenset({"sklearn", "onnx", "pytorch", "python"})
ALL = frozenset(Feature)

WHOLE = yaml.safe_load(
    """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: iris
  labels: {team: a}
  annotations:
    autoscaling.knative.dev/window: 2m
    autoscaling.knative.dev/panicWindowPercentage: "20"
    owner: ada
spec:
  preprocessor:
    python: {class: "stages:Scaler", storageUri: "file:///m/iris"}
  predictor:
    minReplicas: 0
    maxReplicas: 4
    scaleMetric: rps
    scaleTarget: 50
    containerConcurrency: 8
    timeout: 20
    canaryTrafficPercent: 10
    serviceAccountName: someone
    nodeSelector: {disk: ssd}
    annotations:
      autoscaling.knative.dev/window: 90s
      autoscaling.knative.dev/scale-to-zero-pod-retention-period: 1m30s
      autoscaling.knative.dev/target-burst-capacity: "-1"
    batcher: {maxBatchSize: 16, maxLatency: 5, timeout: 30}
    logger:
      mode: request
      url: http://logs.example/events
      metadataHeaders: [X-Tenant]
      metadataAnnotations: [owner, not-there]
    model:
      modelFormat: {name: onnx, version: "1.2"}
      runtime: kserve-onnx
      protocolVersion: v2
      storageUri: file:///m/iris
      sha256: "%s"
      threads: 2
      env: [{name: OMP_NUM_THREADS, value: "1"}]
      resources: {limits: {cpu: "1"}}
  postprocessor:
    remote: {url: "grpc://post:9000", protocol: grpc-v2, model: post, version: "3", timeout: 2}
  explainer:
    shap: {storageUri: "file:///m/background", config: {samples: "100"}}
  detectors:
    - {name: drift, type: ks, storageUri: "file:///m/reference", parameters: {p: 0.05}}
  inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
"""
    % ("ab" * 32)
)


def parsed(manifest: dict[str, Any], serves: frozenset[Feature] = ALL) -> InferenceServiceSpec:
    return parse_manifest(manifest, FORMATS, serves)


def predictor(**fields: Any) -> dict[str, Any]:
    """Gives a manifest whose predictor has these fields beside a model."""
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///m"}
    return with_spec(predictor={"model": model, **fields})


def model(**fields: Any) -> dict[str, Any]:
    return with_spec(predictor={"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///m", **fields}})


def with_spec(**spec: Any) -> dict[str, Any]:
    spec.setdefault("predictor", {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///m"}})
    meta = {"name": "iris"}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": meta, "spec": spec}


def annotated(**annotations: str) -> dict[str, Any]:
    made = with_spec()
    made["metadata"]["annotations"] = {
        f"autoscaling.knative.dev/{key.replace('_', '-')}": value for key, value in annotations.items()
    }
    return made


def test_everything_that_can_be_asked_for_is_understood() -> None:
    spec = parsed(WHOLE)
    found = spec.predictor
    assert (found.format, found.runtime, found.protocol_version) == ("onnx", "kserve-onnx", "v2")
    assert (found.options.sha256, found.options.threads, found.env) == ("ab" * 32, 2, {"OMP_NUM_THREADS": "1"})
    assert found.field == "manifest.spec.predictor.model.storageUri"
    assert spec.scaling == ScalingSpec(
        min_replicas=0,
        max_replicas=4,
        metric=ScaleMetric.RPS,
        target=50,
        window_seconds=90,
        panic_window_percentage=20,
        zero_retention_seconds=90,
        burst_capacity=-1,
    )
    assert (spec.container_concurrency, spec.timeout_seconds, spec.canary_percent) == (8, 20, 10)
    assert spec.batcher == BatcherSpec(16, 0.005, 30)
    assert spec.logger is not None and spec.logger.mode is LoggerMode.REQUEST
    assert (spec.logger.metadata_headers, spec.logger.metadata_annotations) == (("x-tenant",), {"owner": "ada"})
    assert spec.preprocessor is not None and spec.preprocessor.target == "stages:Scaler"
    assert spec.postprocessor is not None and spec.postprocessor.remote is not None
    remote = spec.postprocessor.remote
    assert (remote.url, remote.protocol, remote.model, remote.version, remote.timeout_seconds) == (
        "grpc://post:9000", Protocol.GRPC_V2, "post", "3", 2,
    )  # fmt: skip
    assert spec.explainer is not None and (spec.explainer.type, spec.explainer.parameters) == (
        "shap", {"samples": "100"},
    )  # fmt: skip
    assert [(d.name, d.type, d.parameters) for d in spec.detectors] == [("drift", "ks", {"p": 0.05})]


def test_whole_numbers_may_be_written_as_doubles() -> None:
    """As they are in a protobuf Struct."""
    made = predictor(minReplicas=2.0, canaryTrafficPercent=10.0, batcher={"maxBatchSize": 8.0})
    made["spec"]["inputs"] = [{"name": "x", "datatype": "FP32", "shape": [-1.0, 4.0]}]
    spec = parsed(made)
    assert (spec.scaling.min_replicas, spec.canary_percent, spec.inputs[0].shape) == (2, 10, (-1, 4))
    assert all(type(size) is int for size in spec.inputs[0].shape)


def test_what_is_not_said_has_the_defaults_of_kserve_and_knative() -> None:
    spec = parsed(with_spec(), frozenset())
    assert spec.scaling == ScalingSpec(1, 0, 1, 1, ScaleMetric.CONCURRENCY, None, 0.7, 60, 10, 200, 0, 0, 211)
    assert (spec.batcher, spec.logger, spec.explainer, spec.detectors, spec.canary_percent) == (None,) * 3 + ((), None)
    spec = parsed(predictor(batcher={}, logger={}))
    assert spec.batcher == BatcherSpec(32, 0, 60)
    assert spec.logger is not None and (spec.logger.mode, spec.logger.url) == (LoggerMode.ALL, "")


def test_a_spec_is_frozen_and_can_be_sent_to_a_process() -> None:
    spec = parsed(WHOLE)
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("older", ["sklearn", "onnx", "pytorch"])
def test_the_older_form_is_understood(older: str) -> None:
    spec = parsed(with_spec(predictor={older: {"storageUri": "file:///m", "protocolVersion": "v2"}}))
    assert (spec.predictor.format, spec.predictor.storage_uri) == (older, "file:///m")


def test_a_predictor_may_be_elsewhere() -> None:
    spec = parsed(with_spec(predictor={"remote": {"url": "http://triton:8000", "protocol": "v2"}, "minReplicas": 0}))
    assert spec.predictor.format == "remote" and spec.predictor.remote is not None
    assert spec.predictor.remote.url == "http://triton:8000"


def test_kserves_variable_for_probabilities_is_understood() -> None:
    env = [{"name": "PREDICT_PROBA", "value": "true"}]
    assert parsed(model(env=env)).predictor.options.method == "predict_proba"
    assert parsed(model(env=env, method="predict")).predictor.options.method == "predict"


def test_a_field_goes_before_an_annotation() -> None:
    made = annotated(min_scale="2", max_scale="5", target="7", metric="concurrency")
    scaling = parsed(made).scaling
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target) == (2, 5, 7)
    made["spec"]["predictor"] |= {"minReplicas": 1, "scaleTarget": 9, "scaleMetric": "rps"}
    scaling = parsed(made).scaling
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target) == (1, 5, 9)
    assert scaling.metric is ScaleMetric.RPS


INVALID: list[tuple[dict[str, Any], str]] = [
    (predictor(minReplica=1), "spec.predictor.minReplica"),
    (predictor(minReplicas=-1), "spec.predictor.minReplicas"),
    (predictor(minReplicas=True), "spec.predictor.minReplicas"),
    (predictor(minReplicas=1.5), "spec.predictor.minReplicas"),
    (predictor(minReplicas=3, maxReplicas=2), "spec.predictor.maxReplicas"),
    (predictor(scaleMetric="cpu"), "spec.predictor.scaleMetric"),
    (predictor(scaleMetric="rps", scaleTarget=0), "spec.predictor.scaleTarget"),
    (predictor(containerConcurrency=1001), "spec.predictor.containerConcurrency"),
    (predictor(timeout=601), "spec.predictor.timeout"),
    (predictor(canaryTrafficPercent=101), "spec.predictor.canaryTrafficPercent"),
    (predictor(batcher={"maxBatchSize": 0}), "spec.predictor.batcher.maxBatchSize"),
    (predictor(batcher={"maxDelay": 1}), "spec.predictor.batcher.maxDelay"),
    (predictor(logger={"mode": "some"}), "spec.predictor.logger.mode"),
    (predictor(logger={"url": "ftp://host/"}), "spec.predictor.logger.url"),
    (predictor(logger={"url": "http://user:secret@host/"}), "spec.predictor.logger.url"),
    (predictor(annotations={"a": 1}), "spec.predictor.annotations['a']"),
    (predictor(sklearn={"storageUri": "file:///m"}), "spec.predictor"),
    (model(modelFormat={"name": "caffe"}), "spec.predictor.model.modelFormat.name"),
    (model(modelFormat={"name": "sklearn", "version": "new"}), "spec.predictor.model.modelFormat.version"),
    (model(sha256="beef"), "spec.predictor.model.sha256"),
    (model(env=[{"name": "A=B", "value": ""}]), "spec.predictor.model.env[0].name"),
    (model(env=[{"name": "MLMESH_SERVING_DATABASE_URL", "value": "x"}]), "spec.predictor.model.env[0].name"),
    (model(env=[{"name": "A"}, {"name": "A"}]), "spec.predictor.model.env[1].name"),
    (model(protocolVersion="v3"), "spec.predictor.model.protocolVersion"),
    (model(**{"class": "no-class"}), "spec.predictor.model.class"),
    (with_spec(preprocessor={}), "spec.preprocessor"),
    (with_spec(preprocessor={"remote": {"url": "http://a", "protocol": "grpc-v2"}}), "spec.preprocessor.remote.url"),
    (with_spec(preprocessor={"remote": {"url": "http://a", "protocol": "soap"}}), "spec.preprocessor.remote.protocol"),
    (with_spec(explainer={}), "spec.explainer"),
    (with_spec(explainer={"shap": {}, "permutation": {}}), "spec.explainer"),
    (with_spec(detectors=[{"name": "a", "type": "ks"}, {"name": "a", "type": "ks"}]), "spec.detectors[1].name"),
    (with_spec(detectors=[{"name": "a"}]), "spec.detectors[0].type"),
    (with_spec(transformer={"python": {}}, preprocessor={"python": {}}), "spec.preprocessor.python.class"),
    (annotated(window="5s"), "manifest.metadata.annotations['autoscaling.knative.dev/window']"),
    (annotated(window="6500ms"), "manifest.metadata.annotations['autoscaling.knative.dev/window']"),
    (annotated(window="long"), "manifest.metadata.annotations['autoscaling.knative.dev/window']"),
    (annotated(panic_threshold_percentage="109"), "panic-threshold-percentage"),
    (annotated(target_utilization_percentage="nan"), "target-utilization-percentage"),
    (annotated(target_burst_capacity="-2"), "target-burst-capacity"),
    (annotated(min_scale="many"), "min-scale"),
    (annotated(windows="60s"), "windows"),
    (annotated(metric="cpu"), "metric"),
    ({**with_spec(), "spce": {}}, "manifest.spce"),
]


@pytest.mark.parametrize(("manifest", "field"), INVALID, ids=[field for _, field in INVALID])
def test_what_is_wrong_is_named(manifest: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parsed(manifest)
    assert field in refused.value.violations[0][0]


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (predictor(containers=[{"name": "a"}]), "spec.predictor.containers"),
        (predictor(workerSpec={}), "spec.predictor.workerSpec"),
        (model(args=["--workers=2"]), "spec.predictor.model.args"),
        (model(storage={"key": "a"}), "spec.predictor.model.storage"),
        (model(env=[{"name": "A", "valueFrom": {}}]), "spec.predictor.model.env[0].valueFrom"),
        (with_spec(transformer={"containers": [{}]}), "spec.transformer.containers"),
        (with_spec(explainer={"art": {"type": "SquareAttack"}}), "spec.explainer.art"),
        (predictor(logger={"storage": {"parameters": {"format": "csv"}}}), "spec.predictor.logger.storage"),
        (annotated(**{"class": "hpa.autoscaling.knative.dev"}), "autoscaling.knative.dev/class"),
    ],
)
def test_what_only_containers_can_do_is_refused_and_says_what_to_do(manifest: dict[str, Any], field: str) -> None:
    with pytest.raises(FailedPrecondition, match="is not served: ") as refused:
        parsed(manifest)
    assert field in refused.value.message


ASKING: list[tuple[Feature, dict[str, Any]]] = [
    (Feature.BATCHER, predictor(batcher={})),
    (Feature.CANARY, predictor(canaryTrafficPercent=0)),
    (Feature.CONCURRENCY, predictor(containerConcurrency=1)),
    (Feature.DETECTORS, with_spec(detectors=[{"name": "a", "type": "ks"}])),
    (Feature.ENV, model(env=[{"name": "A", "value": "b"}])),
    (Feature.EXPLAINER, with_spec(explainer={"permutation": {}})),
    (Feature.LOGGER, predictor(logger={})),
    (Feature.REMOTE, with_spec(predictor={"remote": {"url": "http://a"}})),
    (Feature.TIMEOUT, predictor(timeout=1)),
    (Feature.TRANSFORMER, with_spec(transformer={"python": {"class": "a:B", "storageUri": "file:///m"}})),
]


def test_what_a_process_does_not_serve_is_refused_never_ignored() -> None:
    assert {feature for feature, _ in ASKING} == ALL
    for feature, manifest in ASKING:
        parsed(manifest, frozenset({feature}))
        with pytest.raises(FailedPrecondition, match=r"manifest\.spec\..* is not served yet"):
            parsed(manifest, ALL - {feature})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] * bool(path) + [place for key, child in children for place in _places(child, (*path, key))]


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(_places(WHOLE)), value=_JSON)
def test_any_value_anywhere_is_understood_or_refused(place: tuple[Any, ...], value: Any) -> None:
    """Never another exception; and what is refused names something within the manifest."""
    made = copy.deepcopy(WHOLE)
    parent = made
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    try:
        parsed(made)
    except ServiceError as refused:
        assert isinstance(refused, InvalidArgument | FailedPrecondition)
        assert "manifest" in refused.message
