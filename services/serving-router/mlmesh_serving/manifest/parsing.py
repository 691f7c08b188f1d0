"""Reads the manifest of an InferenceService.

Source: https://kserve.github.io/website, reference of serving.kserve.io/v1beta1.
"""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.names import check_name

from mlmesh_serving.manifest import kubernetes
from mlmesh_serving.manifest.fields import as_integer, as_labels, as_object, as_text, only, refuse
from mlmesh_serving.manifest.observers import parse_detectors, parse_explainer, parse_logger
from mlmesh_serving.manifest.predictor import parse_predictor
from mlmesh_serving.manifest.scaling import MAX_CONCURRENCY, parse_scaling
from mlmesh_serving.manifest.spec import BatcherSpec, Feature, InferenceServiceSpec, StageSpec
from mlmesh_serving.manifest.stages import MAX_TIMEOUT_SECONDS, parse_stage, parse_timeout
from mlmesh_serving.manifest.tensors import parse_tensors

API_VERSION = "serving.kserve.io/v1beta1"
_SPEC = "manifest.spec"
_SPEC_FIELDS = (
    "predictor", "preprocessor", "postprocessor", "transformer", "explainer", "detectors", "inputs", "outputs",
)  # fmt: skip
_MAX_BATCH = 65_536
_MAX_LATENCY_MILLISECONDS = 60_000


def parse_manifest(
    manifest: Mapping[str, Any], formats: frozenset[str], serves: frozenset[Feature] = frozenset()
) -> InferenceServiceSpec:
    """Checks a manifest.

    Args:
        manifest: As given by the user.
        formats: The model formats that can be served.
        serves: What else can be served; anything that is asked for beyond it is refused.

    Raises:
        InvalidArgument: A field is missing or wrong; the message names it.
        FailedPrecondition: It asks for something that is not served.
    """
    only(manifest, {"apiVersion", "kind", "metadata", "spec", "status"}, "manifest")
    if manifest.get("apiVersion") != API_VERSION:
        raise InvalidArgument(f"must be {API_VERSION}", field="manifest.apiVersion")
    if manifest.get("kind") != "InferenceService":
        raise InvalidArgument("must be InferenceService", field="manifest.kind")
    metadata = as_object(manifest, "metadata", "manifest")
    name = check_name(as_text(metadata, "name", "manifest.metadata"), "manifest.metadata.name")
    as_labels(metadata, "labels", "manifest.metadata")
    spec = as_object(manifest, "spec", "manifest")
    only(spec, _SPEC_FIELDS, _SPEC)
    found = _spec(name, spec, as_labels(metadata, "annotations", "manifest.metadata"), formats)
    for feature, field in _asked_for(found):
        if feature not in serves:
            raise FailedPrecondition(f"{field} is not served yet")
    return found


def _spec(
    name: str, spec: Mapping[str, Any], annotations: Mapping[str, str], formats: frozenset[str]
) -> InferenceServiceSpec:
    predictor, where = as_object(spec, "predictor", _SPEC), f"{_SPEC}.predictor"
    own = as_labels(predictor, "annotations", where)
    sources: list[tuple[Mapping[str, str], str]] = [
        (annotations, "manifest.metadata.annotations"),
        (own, f"{where}.annotations"),
    ]
    every = {**annotations, **own}
    logger = predictor.get("logger")
    return InferenceServiceSpec(
        name=name,
        predictor=parse_predictor(predictor, formats, where),
        preprocessor=_stage(spec, "preprocessor"),
        postprocessor=_stage(spec, "postprocessor"),
        inputs=parse_tensors(spec, "inputs", _SPEC),
        outputs=parse_tensors(spec, "outputs", _SPEC),
        transformer=_transformer(spec),
        explainer=None
        if spec.get("explainer") is None
        else parse_explainer(as_object(spec, "explainer", _SPEC), f"{_SPEC}.explainer"),
        detectors=parse_detectors(spec, _SPEC),
        batcher=_batcher(predictor, where),
        logger=None
        if logger is None
        else parse_logger(as_object(predictor, "logger", where), f"{where}.logger", every),
        scaling=parse_scaling(predictor, where, sources),
        container_concurrency=as_integer(
            predictor, "containerConcurrency", where, default=0, smallest=0, largest=MAX_CONCURRENCY
        )
        or 0,
        timeout_seconds=parse_timeout(predictor, where),
        canary_percent=as_integer(predictor, "canaryTrafficPercent", where, default=None, smallest=0, largest=100),
        annotations=every,
    )


def _stage(spec: Mapping[str, Any], key: str) -> StageSpec | None:
    if spec.get(key) is None:
        return None
    return parse_stage(as_object(spec, key, _SPEC), f"{_SPEC}.{key}")


def _transformer(spec: Mapping[str, Any]) -> StageSpec | None:
    if spec.get("transformer") is None:
        return None
    where = f"{_SPEC}.transformer"
    for key in ("preprocessor", "postprocessor"):
        if spec.get(key) is not None:
            raise InvalidArgument(f"must not be beside {key}: a transformer is both", field=where)
    transformer = as_object(spec, "transformer", _SPEC)
    refuse(transformer, kubernetes.REFUSED_COMPONENT, where)
    return parse_stage(transformer, where, others=kubernetes.COMPONENT | kubernetes.REFUSED_COMPONENT.keys())


def _batcher(predictor: Mapping[str, Any], where: str) -> BatcherSpec | None:
    if predictor.get("batcher") is None:
        return None
    batcher, where, default = as_object(predictor, "batcher", where), f"{where}.batcher", BatcherSpec()
    only(batcher, {"maxBatchSize", "maxLatency", "timeout"}, where)
    size = as_integer(batcher, "maxBatchSize", where, default=default.max_batch_size, smallest=1, largest=_MAX_BATCH)
    latency = as_integer(batcher, "maxLatency", where, default=0, smallest=0, largest=_MAX_LATENCY_MILLISECONDS)
    timeout = as_integer(batcher, "timeout", where, default=60, smallest=1, largest=MAX_TIMEOUT_SECONDS)
    return BatcherSpec(size or default.max_batch_size, (latency or 0) / 1000, float(timeout or 60))


def _asked_for(spec: InferenceServiceSpec) -> list[tuple[Feature, str]]:
    """Lists what a spec needs beyond a model that answers, with the field that asks for it."""
    predictor = f"{_SPEC}.predictor"
    stages = [spec.preprocessor, spec.postprocessor, spec.transformer, spec.explainer and spec.explainer.stage]
    remotes = [spec.predictor.remote, *(stage.remote for stage in stages if stage)]
    asked = [
        (Feature.TRANSFORMER, spec.transformer, f"{_SPEC}.transformer"),
        (Feature.EXPLAINER, spec.explainer, f"{_SPEC}.explainer"),
        (Feature.DETECTORS, spec.detectors, f"{_SPEC}.detectors"),
        (Feature.BATCHER, spec.batcher, f"{predictor}.batcher"),
        (Feature.LOGGER, spec.logger, f"{predictor}.logger"),
        (Feature.CONCURRENCY, spec.container_concurrency, f"{predictor}.containerConcurrency"),
        (Feature.TIMEOUT, spec.timeout_seconds, f"{predictor}.timeout"),
        (Feature.CANARY, spec.canary_percent is not None, f"{predictor}.canaryTrafficPercent"),
        (Feature.ENV, spec.predictor.env, f"{predictor}.model.env"),
        *((Feature.REMOTE, remote, remote.field) for remote in remotes if remote),
    ]
    return [(feature, field) for feature, given, field in asked if given]
