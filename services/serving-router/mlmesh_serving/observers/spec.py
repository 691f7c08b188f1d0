"""What a detector of a manifest does, of what the manifest says of it.

detectors:
  - name: drift
    type: ks                          # ks, chi2, mmd; mahalanobis, isolation-forest, knn
    storageUri: file:///.../train.npy # the reference; without one it is collected
    parameters: {on: request, window: 200, pValue: 0.01}
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import InvalidArgument

from mlmesh_serving.manifest import DetectorSpec
from mlmesh_serving.manifest.fields import as_choice, as_integer, as_optional_text, only

DRIFT_TYPES = ("ks", "chi2", "mmd")
OUTLIER_TYPES = ("mahalanobis", "isolation-forest", "knn")
CORRECTIONS = ("bonferroni", "bh")
_SHARED = ("on", "tensor", "collect", "pValue")
_PARAMETERS = {
    "ks": ("window", "correction", "categorical"),
    "chi2": ("window", "correction"),
    "mmd": ("window", "permutations"),
    "mahalanobis": (),
    "isolation-forest": (),
    "knn": ("neighbors",),
}
_MAX_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector does.

    Attributes:
        name: Its own.
        type: One of DRIFT_TYPES or OUTLIER_TYPES.
        on: request: it looks at the inputs; response: at the outputs.
        tensor: Name of the tensor that it looks at; empty: the first.
        reference_uri: Data of the reference: .npy, .npz or .csv; empty: collected.
        reference_path: Where that lies on this machine, once it was brought here.
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
    reference_path: str = ""
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


def read_detection(spec: DetectorSpec) -> Detection:
    """Reads a detector's type and parameters.

    Raises:
        InvalidArgument: They are wrong, or not known.
    """
    if spec.type not in _PARAMETERS:
        raise InvalidArgument(f"must be one of {', '.join(_PARAMETERS)}, got {spec.type!r}", field=f"{spec.field}.type")
    if spec.name == "logger":  # in metrics it would be taken for the payload logger
        raise InvalidArgument("must be another name than 'logger'", field=f"{spec.field}.name")
    where, given = f"{spec.field}.parameters", spec.parameters
    only(given, (*_SHARED, *_PARAMETERS[spec.type]), where)
    if spec.storage_uri and "collect" in given:
        raise InvalidArgument("must not be there beside storageUri", field=f"{where}.collect")
    found = Detection(
        name=spec.name,
        type=spec.type,
        on=as_choice(given, "on", where, ("request", "response"), "request"),
        tensor=as_optional_text(given, "tensor", where),
        reference_uri=spec.storage_uri,
        collect=_count(given, "collect", where, 1000, 20, 100_000),
        window=_count(given, "window", where, 200, 10, 1000 if spec.type == "mmd" else 10_000),
        p_value=_share(given, "pValue", where, 0.01),
        correction=as_choice(given, "correction", where, CORRECTIONS, "bonferroni"),
        categorical=_columns(given, "categorical", where),
        permutations=_count(given, "permutations", where, 200, 19, 2000),
        neighbors=_count(given, "neighbors", where, 5, 1, 1000),
        field=spec.field,
    )
    least = math.ceil(1 / found.p_value) - 1  # of n ranks the smallest is one in n + 1: with fewer nothing can alarm
    if found.type == "mmd" and found.permutations < least:
        raise InvalidArgument(f"must be at least {least} for this pValue", field=f"{where}.permutations")
    if not found.is_drift and not found.reference_uri and found.collect < 2 * least:
        raise InvalidArgument(f"must be at least {2 * least} for this pValue", field=f"{where}.collect")
    return found


def _count(given: Mapping[str, Any], key: str, where: str, default: int, smallest: int, largest: int) -> int:
    value = as_integer(given, key, where, default=default, smallest=smallest, largest=largest)
    return default if value is None else value


def _share(given: Mapping[str, Any], key: str, where: str, default: float) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-5 <= value <= 0.5:
        raise InvalidArgument("must be a number from 0.00001 to 0.5", field=f"{where}.{key}")
    return float(value)


def _columns(given: Mapping[str, Any], key: str, where: str) -> tuple[int, ...]:
    value = given.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_COLUMNS or any(type(i) is not int or i < 0 for i in value):
        raise InvalidArgument(f"must be a list of at most {_MAX_COLUMNS} columns, from 0", field=f"{where}.{key}")
    return tuple(value)
