"""The predictor of an InferenceService: which model, in which format, from where."""

import re
from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_serving.manifest import kubernetes
from mlmesh_serving.manifest.fields import (
    as_choice,
    as_object,
    as_optional_text,
    as_text,
    only,
    refuse,
)
from mlmesh_serving.manifest.spec import PredictorSpec
from mlmesh_serving.manifest.stages import parse_remote
from mlmesh_serving.predictors.options import FIELDS, PredictorOptions, parse_options

COMPONENT_FIELDS = frozenset({
    "annotations", "batcher", "canaryTrafficPercent", "containerConcurrency", "logger", "maxReplicas", "minReplicas",
    "scaleMetric", "scaleTarget", "timeout",
})  # fmt: skip
"""Fields of a component that mean something here; read elsewhere."""
_OLDER = frozenset({
    "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton", "xgboost",
})  # fmt: skip
"""KServe's older form has a field for each of these formats."""
_PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MAX_VARIABLES = 64
_MAX_VALUE = 32_768
_RESERVED = "MLMESH_"


def parse_predictor(predictor: Mapping[str, Any], formats: frozenset[str], where: str) -> PredictorSpec:
    """Reads the model.

    Args:
        predictor: As in the manifest.
        formats: The model formats that can be served.
        where: The predictor.

    Raises:
        InvalidArgument: Something is missing, wrong, or not known.
        FailedPrecondition: It asks for what is not served.
    """
    refuse(predictor, kubernetes.REFUSED_COMPONENT, where)
    kinds = {"model", "remote", *formats, *_OLDER}
    only(predictor, {*kinds, *COMPONENT_FIELDS, *kubernetes.COMPONENT, *kubernetes.REFUSED_COMPONENT}, where)
    given = sorted(kind for kind in kinds if predictor.get(kind) is not None)
    if len(given) != 1:
        raise InvalidArgument(f"must hold one of model, remote, {', '.join(sorted(formats))}", field=where)
    kind = given[0]
    body, at = as_object(predictor, kind, where), f"{where}.{kind}"
    if kind == "remote":
        return PredictorSpec("remote", "", PredictorOptions(), at, remote=parse_remote(body, at))
    return _model(body, formats, at, "" if kind == "model" else kind)


def _model(model: Mapping[str, Any], formats: frozenset[str], where: str, older: str) -> PredictorSpec:
    refuse(model, kubernetes.REFUSED_CONTAINER, where)
    known = {"storageUri", "env", "protocolVersion", *FIELDS}
    known |= {"runtime", "modelFormat"} if not older else set()
    only(model, {*known, *kubernetes.CONTAINER, *kubernetes.REFUSED_CONTAINER}, where)
    name = older
    if not older:
        model_format = as_object(model, "modelFormat", where)
        only(model_format, {"name", "version"}, f"{where}.modelFormat")
        name = as_text(model_format, "name", f"{where}.modelFormat")
    if name not in formats:
        raise InvalidArgument(
            f"must be one of {', '.join(sorted(formats))}, got {name!r}", field=f"{where}.modelFormat.name"
        )
    env = _env(model, where)
    if model.get("method") is None and env.get("PREDICT_PROBA", "").lower() == "true":
        # So KServe's servers of scikit-learn and XGBoost are told to give probabilities.
        model = {**model, "method": "predict_proba"}
    return PredictorSpec(
        format=name,
        storage_uri=as_text(model, "storageUri", where),
        options=parse_options(model, name, where),
        where=where,
        env=env,
        runtime="" if older else as_optional_text(model, "runtime", where),
        protocol_version=as_choice(model, "protocolVersion", where, _PROTOCOLS, ""),
    )


def _env(model: Mapping[str, Any], where: str) -> dict[str, str]:
    given, where = model.get("env"), f"{where}.env"
    if given is None:
        return {}
    if not isinstance(given, list) or len(given) > _MAX_VARIABLES:
        raise InvalidArgument(f"must be a list of at most {_MAX_VARIABLES} variables", field=where)
    found: dict[str, str] = {}
    for index, item in enumerate(given):
        at = f"{where}[{index}]"
        if not isinstance(item, Mapping):
            raise InvalidArgument("must be an object", field=at)
        if item.get("valueFrom") is not None:
            raise FailedPrecondition(
                f"{at}.valueFrom is not served: there are no Secrets and ConfigMaps; write a value"
            )
        only(item, {"name", "value", "valueFrom"}, at)
        name, value = as_text(item, "name", at), item.get("value", "")
        if not _VARIABLE.fullmatch(name) or name.startswith(_RESERVED):
            raise InvalidArgument(
                f"must be a name of letters, digits and _, and not begin with {_RESERVED}", field=f"{at}.name"
            )
        if not isinstance(value, str) or len(value) > _MAX_VALUE or "\0" in value:
            raise InvalidArgument(f"must be a string of at most {_MAX_VALUE} characters", field=f"{at}.value")
        if name in found:
            raise InvalidArgument(f"{name!r} is there twice", field=f"{at}.name")
        found[name] = value
    return found
