"""What a manifest can say of a model beyond its format and place."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_serving.storage import LocalModel

FIELDS = frozenset({"method", "class", "config", "codeUri", "sha256", "threads", "keepsRows", "convertTo", "tolerance"})
"""The fields of `model` that are read here."""

METHODS: Mapping[str, tuple[str, ...]] = {
    "sklearn": ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples"),
    "xgboost": ("predict", "predict_proba", "decision_function"),
    "lightgbm": ("predict", "predict_proba", "decision_function"),
    "mlflow": ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples"),
}
"""What can be called on models of a format; of the others: predict."""

VERSIONS: Mapping[str, frozenset[str]] = {
    "sklearn": frozenset({"0", "1"}),
    "xgboost": frozenset({"1", "2", "3"}),
    "lightgbm": frozenset({"2", "3", "4"}),
    "onnx": frozenset({"1"}),
    "pytorch": frozenset({"1", "2"}),
    "mlflow": frozenset({"1", "2", "3"}),
}
"""The versions of formats that KServe's runtimes know, and newer ones that the libraries read."""

_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_SHA256 = re.compile(r"(sha256:)?([0-9a-fA-F]{64})")
_MAX_THREADS = 256
_MAX_CONFIG = 100


@dataclass(frozen=True, slots=True)
class PredictorOptions:
    """How a model is loaded.

    Attributes:
        method: What is called on it.
        target: `module:Class`, of formats whose models need a class; empty: none.
        config: Keyword arguments of the class.
        threads: How many the library computes with.
        keeps_rows: Overrides what the format says of itself; None: does not.
        convert_to: `onnx`, or empty.
        tolerance: How far what a converted model gives may be from what the original gives.
        code_uri: Folder in which the class's module lies; empty: the model's own.
        code: The same on this machine; None: the model's own.
        sha256: What the model's hash must be, in lower case; empty: any.
    """

    method: str = "predict"
    target: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    keeps_rows: bool | None = None
    convert_to: str = ""
    tolerance: float = 1e-4
    code_uri: str = ""
    code: LocalModel | None = None
    sha256: str = ""


def parse_options(model: Mapping[str, Any], model_format: str, where: str) -> PredictorOptions:
    """Reads the options of a manifest's `model`.

    Args:
        model: The object; fields that are none of `FIELDS` are not looked at, but for `modelFormat.version`.
        model_format: Its format's name.
        where: Path of the object, for messages.

    Raises:
        InvalidArgument: One is wrong, or means nothing to this format; the message names it.
    """
    methods = METHODS.get(model_format, ("predict",))
    method = model.get("method", "predict")
    if method not in methods:
        raise InvalidArgument(f"must be one of {', '.join(methods)}", field=f"{where}.method")
    _check_version(model, model_format, where)
    has_class = model_format in {"python", "pytorch"}
    for name in ("class", "config", "codeUri"):
        if model.get(name) is not None and not has_class:
            raise InvalidArgument(f"means nothing to the format {model_format}", field=f"{where}.{name}")
    for name in ("convertTo", "tolerance"):
        if model.get(name) is not None and model_format != "sklearn":
            raise InvalidArgument("only models of scikit-learn are converted", field=f"{where}.{name}")
    target = _text(model, "class", where)
    if (target or model_format == "python") and not _CLASS.fullmatch(target):
        raise InvalidArgument("must be module:Class", field=f"{where}.class")
    config = model.get("config") or {}
    if not isinstance(config, Mapping) or len(config) > _MAX_CONFIG or not all(map(str.isidentifier, config)):
        raise InvalidArgument(f"must be an object of at most {_MAX_CONFIG} keyword arguments", field=f"{where}.config")
    convert_to = _text(model, "convertTo", where)
    if convert_to not in {"", "onnx"}:
        raise InvalidArgument("must be onnx", field=f"{where}.convertTo")
    return PredictorOptions(
        method=method,
        target=target,
        config=dict(config),
        threads=_threads(model, where),
        keeps_rows=_flag(model, "keepsRows", where),
        convert_to=convert_to,
        tolerance=_tolerance(model, where),
        code_uri=_text(model, "codeUri", where),
        sha256=_sha256(model, where),
    )


def _check_version(model: Mapping[str, Any], model_format: str, where: str) -> None:
    described = model.get("modelFormat")
    version = described.get("version") if isinstance(described, Mapping) else None
    known = VERSIONS.get(model_format)
    if version is None or known is None:
        return
    if not isinstance(version, str) or version.partition(".")[0] not in known:
        raise InvalidArgument(
            f"must be one of {', '.join(sorted(known))}, as text", field=f"{where}.modelFormat.version"
        )


def _text(model: Mapping[str, Any], name: str, where: str) -> str:
    value = model.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise InvalidArgument("must be a non-empty string", field=f"{where}.{name}")
    return value


def _whole(value: Any) -> int | None:
    """Gives a whole number; those of JSON that came through a protobuf Struct are floats."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:
        return None
    return int(value)


def _threads(model: Mapping[str, Any], where: str) -> int:
    value = model.get("threads")
    threads = 1 if value is None else _whole(value)
    if threads is None or not 1 <= threads <= _MAX_THREADS:
        raise InvalidArgument(f"must be a whole number from 1 to {_MAX_THREADS}", field=f"{where}.threads")
    return threads


def _flag(model: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = model.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidArgument("must be true or false", field=f"{where}.{name}")
    return value


def _tolerance(model: Mapping[str, Any], where: str) -> float:
    value = model.get("tolerance", 1e-4)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidArgument("must be a number from 0 to 1", field=f"{where}.tolerance")
    return float(value)


def _sha256(model: Mapping[str, Any], where: str) -> str:
    value = _text(model, "sha256", where)
    if not value:
        return ""
    found = _SHA256.fullmatch(value)
    if found is None:
        raise InvalidArgument("must be 64 hexadecimal digits", field=f"{where}.sha256")
    return found[2].lower()
