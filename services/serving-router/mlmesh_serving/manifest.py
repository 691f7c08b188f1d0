"""InferenceService manifests (serving.kserve.io/v1beta1), checked, as plain values.

Beside KServe's `predictor`, a spec may have `preprocessor` and `postprocessor`: Python code that runs around the model
in the same process (docs/serving.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.names import check_name

API_VERSION = "serving.kserve.io/v1beta1"
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_METHODS = ("predict", "predict_proba", "decision_function")
# KServe has these; they belong to a later state of this service, and are refused rather than ignored.
_LATER = ("transformer", "explainer")
_LATER_PREDICTOR = ("canaryTrafficPercent", "batcher", "logger", "containers", "workerSpec")


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A preprocessor or a postprocessor.

    Attributes:
        target: `module:Class` or `module:function`.
        storage_uri: The folder that the module lies in.
    """

    target: str
    storage_uri: str


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """The model.

    Attributes:
        format: Name of the model format: sklearn.
        storage_uri: A model file, or the folder it lies in.
        method: What is called on the model: predict, predict_proba, decision_function.
    """

    format: str
    storage_uri: str
    method: str


@dataclass(frozen=True, slots=True)
class InferenceServiceSpec:
    """What is served."""

    name: str
    predictor: PredictorSpec
    preprocessor: StageSpec | None
    postprocessor: StageSpec | None


def parse_manifest(manifest: Mapping[str, Any], formats: frozenset[str]) -> InferenceServiceSpec:
    """Checks a manifest.

    Args:
        manifest: As given by the user.
        formats: The model formats that can be served.

    Raises:
        InvalidArgument: A field is missing or wrong; the message names it.
        FailedPrecondition: It asks for something that is not served yet.
    """
    if manifest.get("apiVersion") != API_VERSION:
        raise InvalidArgument(f"must be {API_VERSION}", field="manifest.apiVersion")
    if manifest.get("kind") != "InferenceService":
        raise InvalidArgument("must be InferenceService", field="manifest.kind")
    name = _text(_object(manifest, "metadata", "manifest"), "name", "manifest.metadata")
    check_name(name, "manifest.metadata.name")
    spec = _object(manifest, "spec", "manifest")
    _only(spec, {"predictor", "preprocessor", "postprocessor", *_LATER}, "manifest.spec")
    _refuse(spec, _LATER, "manifest.spec")
    return InferenceServiceSpec(
        name=name,
        predictor=_predictor(_object(spec, "predictor", "manifest.spec"), formats),
        preprocessor=_stage(spec, "preprocessor"),
        postprocessor=_stage(spec, "postprocessor"),
    )


def _predictor(predictor: Mapping[str, Any], formats: frozenset[str]) -> PredictorSpec:
    where = "manifest.spec.predictor"
    _refuse(predictor, _LATER_PREDICTOR, where)
    if "model" in predictor:
        model = _object(predictor, "model", where)
        where += ".model"
        given = _text(_object(model, "modelFormat", where), "name", f"{where}.modelFormat")
    else:  # KServe's older form: `predictor: {sklearn: {storageUri: ...}}`
        given = next((name for name in sorted(formats) if name in predictor), "")
        if not given:
            raise InvalidArgument(f"must hold model, or one of {', '.join(sorted(formats))}", field=where)
        model = _object(predictor, given, where)
        where += f".{given}"
    if given not in formats:
        raise InvalidArgument(
            f"must be one of {', '.join(sorted(formats))}, got {given!r}", field=f"{where}.modelFormat.name"
        )
    method = model.get("method", "predict")
    if method not in _METHODS:
        raise InvalidArgument(f"must be one of {', '.join(_METHODS)}", field=f"{where}.method")
    return PredictorSpec(given, _text(model, "storageUri", where), method)


def _stage(spec: Mapping[str, Any], key: str) -> StageSpec | None:
    if spec.get(key) is None:
        return None
    where = f"manifest.spec.{key}"
    python = _object(_object(spec, key, "manifest.spec"), "python", where)
    where += ".python"
    target = _text(python, "class", where)
    if not _CLASS.fullmatch(target):
        raise InvalidArgument("must be module:Class or module:function", field=f"{where}.class")
    return StageSpec(target, _text(python, "storageUri", where))


def _object(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be an object", field=f"{where}.{key}")
    return value


def _text(parent: Mapping[str, Any], key: str, where: str) -> str:
    value = parent.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidArgument("must be a non-empty string", field=f"{where}.{key}")
    return value


def _only(parent: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in parent:
        if key not in allowed:
            raise InvalidArgument(f"is not known; known are {', '.join(sorted(allowed))}", field=f"{where}.{key}")


def _refuse(parent: Mapping[str, Any], later: tuple[str, ...], where: str) -> None:
    for key in later:
        if parent.get(key) is not None:
            raise FailedPrecondition(f"{where}.{key} is not served yet")
