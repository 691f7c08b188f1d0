"""InferenceService manifests (serving.kserve.io/v1beta1), checked, as plain values.

Beside KServe's `predictor`, a spec may have `preprocessor` and `postprocessor`, Python code that runs around the model
in the same process, and `inputs` and `outputs`, the tensors that the whole takes and gives (docs/serving.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.names import check_name

from mlmesh_serving.predictors.options import FIELDS, PredictorOptions, parse_options
from mlmesh_serving.tensor import NUMPY_OF, TensorInfo

API_VERSION = "serving.kserve.io/v1beta1"
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
# KServe has these; they belong to a later state of this service, and are refused rather than ignored.
_LATER = ("transformer", "explainer")
_LATER_PREDICTOR = (
    "canaryTrafficPercent", "batcher", "logger", "containers", "initContainers", "volumes", "workerSpec", "timeout",
    "containerConcurrency",
)  # fmt: skip
_LATER_MODEL = ("args", "command", "env", "envFrom", "image", "storage", "volumeMounts")
# For Kubernetes alone: kept in the manifest, of no effect on one machine.
_KUBERNETES = {
    "affinity", "annotations", "deploymentStrategy", "imagePullSecrets", "labels", "maxReplicas", "minReplicas",
    "nodeSelector", "scaleMetric", "scaleTarget", "serviceAccountName", "tolerations",
}  # fmt: skip
_KUBERNETES_MODEL = {"name", "ports", "protocolVersion", "resources", "runtime", "runtimeVersion"}
_MAX_TENSORS = 64
_MAX_DIMENSIONS = 32


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A preprocessor or a postprocessor.

    Attributes:
        target: `module:Class` or `module:function`.
        storage_uri: The folder that the module lies in.
        field: Where the manifest says so, for messages.
    """

    target: str
    storage_uri: str
    field: str


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """The model.

    Attributes:
        format: Name of the model format.
        storage_uri: A model file, or the folder it lies in.
        options: How it is loaded.
        where: Where the manifest says all this, for messages.
    """

    format: str
    storage_uri: str
    options: PredictorOptions
    where: str

    @property
    def field(self) -> str:
        """Where the manifest says the storageUri, for messages."""
        return f"{self.where}.storageUri"


@dataclass(frozen=True, slots=True)
class InferenceServiceSpec:
    """What is served.

    Attributes:
        inputs: What the first stage takes; empty: not declared.
        outputs: What the last stage gives; empty: not declared.
    """

    name: str
    predictor: PredictorSpec
    preprocessor: StageSpec | None
    postprocessor: StageSpec | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


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
    _refuse(spec, _LATER, "manifest.spec")
    _only(spec, {"predictor", "preprocessor", "postprocessor", "inputs", "outputs", *_LATER}, "manifest.spec")
    return InferenceServiceSpec(
        name=name,
        predictor=_predictor(_object(spec, "predictor", "manifest.spec"), formats),
        preprocessor=_stage(spec, "preprocessor"),
        postprocessor=_stage(spec, "postprocessor"),
        inputs=_tensors(spec, "inputs"),
        outputs=_tensors(spec, "outputs"),
    )


def _predictor(predictor: Mapping[str, Any], formats: frozenset[str]) -> PredictorSpec:
    where = "manifest.spec.predictor"
    _refuse(predictor, _LATER_PREDICTOR, where)
    _only(predictor, {"model", *formats, *_KUBERNETES, *_LATER_PREDICTOR}, where)
    if len({"model", *formats} & predictor.keys()) > 1:
        raise InvalidArgument("must hold one model", field=where)
    if "model" in predictor:
        model = _object(predictor, "model", where)
        where += ".model"
        model_format = _object(model, "modelFormat", where)
        given = _text(model_format, "name", f"{where}.modelFormat")
        _only(model_format, {"name", "version"}, f"{where}.modelFormat")
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
    _refuse(model, _LATER_MODEL, where)
    _only(model, {"modelFormat", "storageUri", *FIELDS, *_KUBERNETES_MODEL, *_LATER_MODEL}, where)
    return PredictorSpec(given, _text(model, "storageUri", where), parse_options(model, given, where), where)


def _stage(spec: Mapping[str, Any], key: str) -> StageSpec | None:
    if spec.get(key) is None:
        return None
    where = f"manifest.spec.{key}"
    stage = _object(spec, key, "manifest.spec")
    _only(stage, {"python"}, where)
    python = _object(stage, "python", where)
    where += ".python"
    _only(python, {"class", "storageUri"}, where)
    target = _text(python, "class", where)
    if not _CLASS.fullmatch(target):
        raise InvalidArgument("must be module:Class or module:function", field=f"{where}.class")
    return StageSpec(target, _text(python, "storageUri", where), f"{where}.storageUri")


def _tensors(spec: Mapping[str, Any], key: str) -> tuple[TensorInfo, ...]:
    declared = spec.get(key)
    if declared is None:
        return ()
    where = f"manifest.spec.{key}"
    if not isinstance(declared, list) or not 1 <= len(declared) <= _MAX_TENSORS:
        raise InvalidArgument(f"must be a list of 1 to {_MAX_TENSORS} tensors", field=where)
    found: list[TensorInfo] = []
    for index, item in enumerate(declared):
        at = f"{where}[{index}]"
        if not isinstance(item, Mapping):
            raise InvalidArgument("must be an object", field=at)
        _only(item, {"name", "datatype", "shape"}, at)
        name = _text(item, "name", at)
        if name in {other.name for other in found}:
            raise InvalidArgument(f"{name!r} is there twice", field=f"{at}.name")
        datatype = _text(item, "datatype", at)
        if datatype not in NUMPY_OF:
            raise InvalidArgument(f"must be one of {', '.join(NUMPY_OF)}", field=f"{at}.datatype")
        found.append(TensorInfo(name, datatype, _shape(item.get("shape"), f"{at}.shape")))
    return tuple(found)


def _shape(shape: Any, field: str) -> tuple[int, ...]:
    is_list = isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS
    if not is_list or not all(type(d) is int and -1 <= d < 1 << 31 for d in shape):
        raise InvalidArgument("must be a list of integers, -1 for any size", field=field)
    return tuple(shape)


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
