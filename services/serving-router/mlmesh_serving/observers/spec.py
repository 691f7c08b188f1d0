"""What a manifest says of payload logging and of detectors.

`logger` has KServe's fields (serving.kserve.io/v1beta1 LoggerSpec). `detectors` is our own:

    detectors:
      - name: drift
        type: ks                          # ks, chi2, mmd; mahalanobis, isolation-forest, knn
        on: request                       # or response
        reference: {storageUri: file:///.../train.npy}     # or {collect: 1000}
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.names import check_name

from mlmesh_serving.fields import Fields

MODES = ("all", "request", "response")
SINK_SCHEMES = ("http", "https", "file", "s3", "minio")
DRIFT_TYPES = ("ks", "chi2", "mmd")
OUTLIER_TYPES = ("mahalanobis", "isolation-forest", "knn")
CORRECTIONS = ("bonferroni", "bh")
MAX_DETECTORS = 16
_KUBERNETES_STORAGE = ("key", "serviceAccountName")


@dataclass(frozen=True, slots=True)
class LoggerSpec:
    """Where payloads are logged to.

    Attributes:
        url: An HTTP endpoint that takes CloudEvents; or a folder, `file:///`, `s3://` or `minio://`, for JSON lines.
        mode: all, request or response.
        metadata_headers: Request headers that an event carries.
        metadata_annotations: Annotations of the InferenceService that an event carries.
        storage_path: Folder below the component's folder in a store.
        field: Where the manifest says so, for messages.
    """

    url: str
    mode: str = "all"
    metadata_headers: tuple[str, ...] = ()
    metadata_annotations: tuple[str, ...] = ()
    storage_path: str = ""
    field: str = "logger"

    @property
    def is_http(self) -> bool:
        """Whether events go to an HTTP endpoint."""
        return urlsplit(self.url).scheme in {"http", "https"}


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A detector of drift or of outliers.

    Attributes:
        name: Its own.
        type: One of DRIFT_TYPES or OUTLIER_TYPES.
        on: request: it looks at the inputs; response: at the outputs.
        tensor: Name of the tensor that it looks at; empty: the first.
        reference_uri: Data of the reference: .npy, .npz or .csv; empty: collected.
        collect: How many first instances make the reference, where there is no file.
        window: Instances that a drift test is made of; the next test is made of the next ones.
        p_value: Share of false alarms: of windows (drift) or of instances (outliers).
        correction: For several features: bonferroni, or bh (Benjamini-Hochberg).
        categorical: Columns that hold categories (type ks).
        permutations: Of the MMD's test.
        neighbors: Of the k-nearest-neighbours distance.
        field: Where the manifest says so, for messages.
    """

    name: str
    type: str
    on: str = "request"
    tensor: str = ""
    reference_uri: str = ""
    collect: int = 1000
    window: int = 200
    p_value: float = 0.01
    correction: str = "bonferroni"
    categorical: tuple[int, ...] = ()
    permutations: int = 200
    neighbors: int = 5
    field: str = "detectors"

    @property
    def is_drift(self) -> bool:
        """Whether it tests windows; else it judges instances."""
        return self.type in DRIFT_TYPES


def parse_logger(value: Any, where: str) -> LoggerSpec:
    """Reads KServe's LoggerSpec.

    Raises:
        InvalidArgument: A field is wrong.
        FailedPrecondition: It asks for a format that is not served.
    """
    fields = Fields(value, where, ("url", "mode", "metadataHeaders", "metadataAnnotations", "storage"))
    url = fields.text("url")
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname if parts.scheme in {"http", "https"} else parts.netloc or parts.path)
        fits = parts.scheme in SINK_SCHEMES and has_place and not parts.fragment and parts.port != 0
        fits = fits and not parts.username and not parts.password
    except ValueError:
        fits = False
    if not fits:
        wanted = ", ".join(f"{scheme}://" for scheme in SINK_SCHEMES)
        raise InvalidArgument(f"must be a URL of {wanted}, without credentials or a fragment", field=fields.at("url"))
    return LoggerSpec(
        url=url,
        mode=fields.choice("mode", MODES, "all"),
        metadata_headers=tuple(name.lower() for name in fields.texts("metadataHeaders")),
        metadata_annotations=fields.texts("metadataAnnotations"),
        storage_path=_storage_path(fields.raw("storage"), fields.at("storage")),
        field=where,
    )


def _storage_path(value: Any, where: str) -> str:
    if value is None:
        return ""
    fields = Fields(value, where, ("path", "parameters", *_KUBERNETES_STORAGE))
    parameters = fields.raw("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise InvalidArgument("must be an object", field=fields.at("parameters"))
    if parameters.get("format", "json") != "json":
        raise FailedPrecondition(f"{where}.parameters.format: only json is served, got {parameters['format']!r}")
    path = fields.text("path", "").strip("/")
    if ".." in path.split("/"):
        raise InvalidArgument("must not hold '..'", field=fields.at("path"))
    return path


def parse_detectors(value: Any, where: str) -> tuple[DetectorSpec, ...]:
    """Reads the list of detectors.

    Raises:
        InvalidArgument: A field is wrong, or two detectors have one name.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_DETECTORS:
        raise InvalidArgument(f"must be a list of at most {MAX_DETECTORS} detectors", field=where)
    found = [_detector(item, f"{where}[{index}]") for index, item in enumerate(value)]
    names = [detector.name for detector in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidArgument(f"{name!r} is there twice", field=f"{where}[{index}].name")
    return tuple(found)


_DETECTOR_FIELDS = {
    "ks": ("window", "correction", "categorical"),
    "chi2": ("window", "correction"),
    "mmd": ("window", "permutations"),
    "mahalanobis": (),
    "isolation-forest": (),
    "knn": ("neighbors",),
}


def _detector(value: Any, where: str) -> DetectorSpec:
    shared = ("name", "type", "on", "tensor", "reference", "pValue")
    anything = Fields(value, where, (*shared, "window", "correction", "categorical", "permutations", "neighbors"))
    kind = anything.choice("type", (*DRIFT_TYPES, *OUTLIER_TYPES))
    fields = Fields(value, where, (*shared, *_DETECTOR_FIELDS[kind]))
    name = fields.text("name", kind)
    check_name(name, fields.at("name"))
    if name == "logger":  # in metrics it would be taken for the payload logger
        raise InvalidArgument("must be another name than 'logger'", field=fields.at("name"))
    reference = Fields(fields.raw("reference") or {}, fields.at("reference"), ("storageUri", "collect"))
    if "storageUri" in reference and "collect" in reference:
        raise InvalidArgument("must hold storageUri or collect, not both", field=reference.where)
    p_value = fields.fraction("pValue", 0.01, 0.0, 0.5)
    collect = reference.integer("collect", 1000, 20, 100_000)
    spec = DetectorSpec(
        name=name,
        type=kind,
        on=fields.choice("on", ("request", "response"), "request"),
        tensor=fields.text("tensor", ""),
        reference_uri=reference.text("storageUri", ""),
        collect=collect,
        window=fields.integer("window", 200, 10, 1000 if kind == "mmd" else 10_000),
        p_value=p_value,
        correction=fields.choice("correction", CORRECTIONS, "bonferroni"),
        categorical=fields.columns("categorical"),
        permutations=fields.integer("permutations", 200, 19, 2000),
        neighbors=fields.integer("neighbors", 5, 1, 1000),
        field=where,
    )
    least = math.ceil(1 / p_value) - 1  # of n ranks the smallest is one in n + 1: with fewer nothing can alarm
    if kind == "mmd" and spec.permutations < least:
        raise InvalidArgument(f"must be at least {least} for this pValue", field=fields.at("permutations"))
    if kind in OUTLIER_TYPES and "storageUri" not in reference and collect < 2 * least:
        raise InvalidArgument(f"must be at least {2 * least} for this pValue", field=reference.at("collect"))
    return spec
