"""What happens beside the path of a prediction: logger, detectors, explainer."""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.names import check_name

from mlmesh_serving.manifest import kubernetes
from mlmesh_serving.manifest.fields import (
    as_choice,
    as_object,
    as_optional_object,
    as_optional_text,
    as_text,
    as_texts,
    as_url,
    only,
    refuse,
)
from mlmesh_serving.manifest.spec import DetectorSpec, ExplainerSpec, LoggerMode, LoggerSpec
from mlmesh_serving.manifest.stages import parse_stage

_MAX_HEADERS = 32
_MAX_DETECTORS = 16
_EXPLAINERS = ("shap", "permutation", "occlusion", "python", "remote")
_REFUSED_EXPLAINERS = dict.fromkeys(
    ("art", "alibi", "aix"), "its server is a container; shap, permutation, occlusion, python and remote are served"
)


def parse_logger(logger: Mapping[str, Any], where: str, annotations: Mapping[str, str]) -> LoggerSpec:
    """Reads KServe's logger.

    Args:
        logger: As in the manifest.
        where: The logger.
        annotations: Of the InferenceService.

    Raises:
        InvalidArgument: Something is wrong, or not known.
        FailedPrecondition: The log is to be written in another format than JSON.
    """
    only(logger, {"mode", "url", "metadataHeaders", "metadataAnnotations", "storage"}, where)
    chosen = as_texts(logger, "metadataAnnotations", where, most=_MAX_HEADERS)
    return LoggerSpec(
        mode=LoggerMode(as_choice(logger, "mode", where, list(LoggerMode), LoggerMode.ALL)),
        url=_sink(logger, where),
        metadata_headers=tuple(h.lower() for h in as_texts(logger, "metadataHeaders", where, most=_MAX_HEADERS)),
        metadata_annotations={key: annotations[key] for key in chosen if key in annotations},
        field=where,
        storage_path=_storage_path(as_optional_object(logger, "storage", where), f"{where}.storage"),
    )


def _sink(logger: Mapping[str, Any], where: str) -> str:
    if logger.get("url") is None:
        return ""
    url = as_text(logger, "url", where)
    if url.startswith("file:///") and url.isprintable():  # the one without a host
        return url
    return as_url(logger, "url", where, ("http", "https", "s3", "minio", "file"))


def _storage_path(storage: Mapping[str, Any], where: str) -> str:
    only(storage, {"path", "parameters", "key", "serviceAccountName"}, where)
    parameters = as_optional_object(storage, "parameters", where)
    if parameters.get("format", "json") != "json":
        raise FailedPrecondition(f"{where}.parameters.format is not served: events are written as json")
    path = as_optional_text(storage, "path", where).strip("/")
    if ".." in path.split("/") or not path.isprintable():
        raise InvalidArgument("must be a path without '..'", field=f"{where}.path")
    return path


def parse_detectors(spec: Mapping[str, Any], where: str) -> tuple[DetectorSpec, ...]:
    """Reads `detectors`, or raises InvalidArgument."""
    given = spec.get("detectors")
    if given is None:
        return ()
    where = f"{where}.detectors"
    if not isinstance(given, list) or len(given) > _MAX_DETECTORS:
        raise InvalidArgument(f"must be a list of at most {_MAX_DETECTORS} detectors", field=where)
    found: list[DetectorSpec] = []
    for index, item in enumerate(given):
        at = f"{where}[{index}]"
        if not isinstance(item, Mapping):
            raise InvalidArgument("must be an object", field=at)
        only(item, {"name", "type", "storageUri", "parameters"}, at)
        name = check_name(as_text(item, "name", at), f"{at}.name")
        if name in {other.name for other in found}:
            raise InvalidArgument(f"{name!r} is there twice", field=f"{at}.name")
        found.append(
            DetectorSpec(
                name=name,
                type=as_text(item, "type", at),
                storage_uri=as_optional_text(item, "storageUri", at),
                parameters=as_optional_object(item, "parameters", at),
                field=at,
            )
        )
    return tuple(found)


def parse_explainer(explainer: Mapping[str, Any], where: str) -> ExplainerSpec:
    """Reads the explainer: `{TYPE: {storageUri, config}}`, `{python: ...}` or `{remote: ...}`.

    Raises:
        InvalidArgument: Something is missing, wrong, or not known.
        FailedPrecondition: It is a container.
    """
    refuse(explainer, {**kubernetes.REFUSED_COMPONENT, **_REFUSED_EXPLAINERS}, where)
    only(explainer, {*_EXPLAINERS, *kubernetes.COMPONENT, *kubernetes.REFUSED_COMPONENT, *_REFUSED_EXPLAINERS}, where)
    given = [kind for kind in _EXPLAINERS if explainer.get(kind) is not None]
    if len(given) != 1:
        raise InvalidArgument(f"must hold one of {', '.join(_EXPLAINERS)}", field=where)
    kind = given[0]
    if kind in {"python", "remote"}:
        stage = parse_stage(explainer, where, others=kubernetes.COMPONENT)
        return ExplainerSpec(kind, "", {}, stage, stage.field)
    body = as_object(explainer, kind, where)
    at = f"{where}.{kind}"
    refuse(body, kubernetes.REFUSED_CONTAINER, at)
    only(body, {"storageUri", "config", *kubernetes.CONTAINER, *kubernetes.REFUSED_CONTAINER}, at)
    return ExplainerSpec(
        type=kind,
        storage_uri=as_optional_text(body, "storageUri", at),
        parameters=as_optional_object(body, "config", at),
        stage=None,
        field=at,
    )
