"""A detector of one subject: gets its reference, then looks at instances as they come."""

import hashlib
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, ServiceError
from mlmesh_kit.objectstore.base import replacing
from numpy.typing import NDArray

from mlmesh_serving.observers.detectors.conformal import ConformalTest
from mlmesh_serving.observers.detectors.correction import threshold
from mlmesh_serving.observers.detectors.mmd import MMDTest
from mlmesh_serving.observers.detectors.reference import read_table
from mlmesh_serving.observers.detectors.results import DriftResult, OutlierResult, Status
from mlmesh_serving.observers.detectors.scores import IsolationForest, Mahalanobis, NearestNeighbors, Score
from mlmesh_serving.observers.detectors.two_sample import chi_squared, kolmogorov_smirnov
from mlmesh_serving.observers.spec import Detection
from mlmesh_serving.tensor import Tensor

logger = logging.getLogger(__name__)

Result = DriftResult | OutlierResult


class Detector:
    """Gathers, tests, and remembers what it found. Blocks while it computes.

    Args:
        spec: What it does.
        kept: File that a collected reference is kept in, so that it outlives this process.
    """

    def __init__(self, spec: Detection, kept: Path) -> None:
        self.spec = spec
        self.status = Status(spec.type)
        self._kept = kept
        self._random = np.random.default_rng(0)  # the same data, the same answer
        self._collected: list[NDArray[Any]] = []
        self._waiting: list[NDArray[Any]] = []
        self._reference: NDArray[Any] = np.empty((0, 0))
        self._mmd: MMDTest | None = None
        self._conformal: ConformalTest | None = None

    def load(self) -> None:
        """Loads the reference, from its file or from what was collected before; what fails is in the status."""
        try:
            if self.spec.reference_uri:
                path = Path(self.spec.reference_path)
                self._begin(read_table(path, self.spec.tensor, f"{self.spec.field}.storageUri"))
            elif self._kept.exists():
                self._begin(np.load(self._kept, allow_pickle=False))
        except ServiceError as error:
            self._fail(error.message)
        except Exception as error:
            logger.exception("detector %s cannot be made ready", self.spec.name)
            self._fail(f"an unexpected {type(error).__name__}; the log has it")

    def observe(self, tensors: list[Tensor]) -> list[Result]:
        """Looks at the instances of a request; gives what was found, most often nothing."""
        if self.status.state == "FAILED":
            return []
        try:
            rows, judged = self._rows(tensors)
            if self.status.state == "COLLECTING":
                self._collect(rows)
                return []
            if rows.shape[1] != self._reference.shape[1]:
                raise InvalidArgument(f"the reference has {self._reference.shape[1]} features, got {rows.shape[1]}")
            return self._windows(rows) if self.spec.is_drift else self._outliers(rows, judged)
        except ServiceError as error:
            self.status.message = error.message
        except Exception as error:
            logger.exception("detector %s failed", self.spec.name)
            self.status.message = f"an unexpected {type(error).__name__}; the log has it"
        return []

    def _fail(self, message: str) -> None:
        self.status.state, self.status.message = "FAILED", message

    def _rows(self, tensors: list[Tensor]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Gives the instances that can be judged, one a row, and which of all they are."""
        wanted = [tensor for tensor in tensors if not self.spec.tensor or tensor.name == self.spec.tensor]
        if not wanted:
            raise InvalidArgument(f"there is no tensor {self.spec.tensor!r}")
        data = wanted[0].data
        data = data.reshape(1, 1) if data.ndim == 0 else data.reshape(len(data), -1)
        rows, judged = self._finite(data)
        self.status.instances += len(data)
        self.status.skipped += len(data) - len(rows)
        return rows, judged

    def _finite(self, data: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        if data.dtype.kind not in "biuf":
            if self.spec.type != "chi2":
                raise InvalidArgument(f"{self.spec.type} needs numbers, got {data.dtype}")
            texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in data.flat]
            return np.array(texts, dtype=np.str_).reshape(data.shape), np.ones(len(data), dtype=bool)
        rows = data.astype(np.float64)
        finite = np.asarray(np.isfinite(rows).all(axis=1))
        return rows[finite], finite

    def _collect(self, rows: NDArray[Any]) -> None:
        if self._collected and rows.shape[1] != self._collected[0].shape[1]:
            raise InvalidArgument(f"{self._collected[0].shape[1]} features were collected, got {rows.shape[1]}")
        if len(rows):
            self._collected.append(rows)
        self.status.reference = sum(map(len, self._collected))
        if self.status.reference < self.spec.collect:
            return
        reference = np.concatenate(self._collected)[: self.spec.collect]
        self._collected.clear()
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._kept) as file:
            np.save(file, reference, allow_pickle=False)
        self._begin(reference)

    def _begin(self, reference: NDArray[Any]) -> None:
        reference, _ = self._finite(reference)
        if len(reference) < 2:
            raise FailedPrecondition("the reference must have at least two rows of finite numbers")
        if max(self.spec.categorical, default=0) >= reference.shape[1]:
            raise FailedPrecondition(
                f"{self.spec.field}.parameters.categorical: there are {reference.shape[1]} features"
            )
        if self.spec.type == "mmd":
            self._mmd = MMDTest(reference, self.spec.permutations, self._random)
        elif not self.spec.is_drift:
            self._conformal = ConformalTest(_score(self.spec), reference, self.spec.p_value, self._random)
        self._reference = reference
        self.status.reference = len(reference)
        self.status.state = "READY"

    def _windows(self, rows: NDArray[Any]) -> list[Result]:
        self._waiting.append(rows)
        results: list[Result] = []
        if sum(map(len, self._waiting)) < self.spec.window:
            return results
        together = np.concatenate(self._waiting)
        while len(together) >= self.spec.window:
            results.append(self._test(together[: self.spec.window]))
            together = together[self.spec.window :]
        self._waiting = [together]
        return results

    def _test(self, window: NDArray[Any]) -> DriftResult:
        level = self.spec.p_value
        if self._mmd is not None:
            pairs = [self._mmd.test(window)]
        else:
            pairs = [self._feature(column, window[:, column]) for column in range(window.shape[1])]
        p_values = [p_value for p_value, _ in pairs]
        limit = threshold(np.array(p_values), level, self.spec.correction)
        result = DriftResult(min(p_values) <= limit, p_values, [far for _, far in pairs], limit, len(window))
        self.status.windows += 1
        self.status.drifts += result.is_drift
        self._remember(result)
        return result

    def _feature(self, column: int, values: NDArray[Any]) -> tuple[float, float]:
        reference = self._reference[:, column]
        if self.spec.type == "chi2" or column in self.spec.categorical:
            level = self.spec.p_value / self._reference.shape[1]
            return chi_squared(reference, values, level, self._random)
        return kolmogorov_smirnov(reference, values)

    def _outliers(self, rows: NDArray[Any], judged: NDArray[Any]) -> list[Result]:
        if not len(rows):
            return []
        assert self._conformal is not None
        p_values, scores = self._conformal.p_values(rows)
        found = p_values <= self.spec.p_value
        self.status.outliers += int(found.sum())
        if not found.any():
            return []
        result = OutlierResult(
            is_outlier=[value is True for value in _placed(found, judged)],
            p_values=_placed(p_values, judged),
            scores=_placed(scores, judged),
            threshold=self.spec.p_value,
        )
        self._remember(result)
        return [result]

    def _remember(self, result: Result) -> None:
        self.status.last, self.status.last_seconds = result.data(), time.time()


def _placed(values: NDArray[Any], judged: NDArray[Any]) -> list[Any]:
    """Gives the values in the places of the instances that they belong to, None for the others."""
    placed: list[Any] = [None] * len(judged)
    for place, value in zip(np.flatnonzero(judged).tolist(), values.tolist(), strict=True):
        placed[place] = value
    return placed


def _score(spec: Detection) -> Score:
    scores = {"mahalanobis": Mahalanobis, "isolation-forest": IsolationForest}
    return NearestNeighbors(spec.neighbors) if spec.type == "knn" else scores[spec.type]()


def kept_file(folder: Path, source: str, spec: Detection) -> Path:
    """Gives the file of a collected reference: another for each revision, detector, and what it collects."""
    told = f"{source}\n{spec.name}\n{spec.type}\n{spec.on}\n{spec.tensor}\n{spec.collect}"
    return folder / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.npy"
