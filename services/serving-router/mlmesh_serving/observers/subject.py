"""What is observed: a revision of an InferenceService, with its logger and its detectors."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlmesh_serving.manifest import InferenceServiceSpec, LoggerMode, LoggerSpec
from mlmesh_serving.observers.spec import Detection, read_detection


@dataclass(frozen=True, slots=True)
class Subject:
    """A revision, as those who look at it need to know it.

    Attributes:
        namespace: Of the InferenceService.
        name: Of the InferenceService.
        revision: Its number.
        endpoint: default, or canary.
        component: predictor, transformer or explainer.
        logger: Payload logging; None: none.
        detectors: Of drift and outliers.
    """

    namespace: str
    name: str
    revision: int
    endpoint: str = "default"
    component: str = "predictor"
    logger: LoggerSpec | None = None
    detectors: tuple[Detection, ...] = ()

    @classmethod
    def of(cls, namespace: str, revision: int, spec: InferenceServiceSpec, endpoint: str = "default") -> "Subject":
        """Makes the subject of a revision's manifest.

        Raises:
            InvalidArgument: A detector is wrong.
        """
        detectors = tuple(map(read_detection, spec.detectors))
        return cls(namespace, spec.name, revision, endpoint, logger=spec.logger, detectors=detectors)

    def located(self, references: Mapping[str, Path]) -> "Subject":
        """Gives it with the places, on this machine, of its detectors' references.

        Args:
            references: By the name of the detector; for each that has a `reference_uri`.
        """
        detectors = tuple(
            replace(detector, reference_path=str(references[detector.name])) if detector.reference_uri else detector
            for detector in self.detectors
        )
        return replace(self, detectors=detectors)

    @property
    def source(self) -> str:
        """The source of its events, a URI reference."""
        return f"/namespaces/{self.namespace}/inferenceservices/{self.name}/revisions/{self.revision}"

    def attributes(self) -> dict[str, str]:
        """Gives the attributes that KServe's events have."""
        return {
            "inferenceservicename": self.name,
            "namespace": self.namespace,
            "component": self.component,
            "endpoint": self.endpoint,
        }

    @property
    def is_observed(self) -> bool:
        """Whether anybody looks at it."""
        return self.logger is not None or bool(self.detectors)

    @property
    def wants_answers(self) -> bool:
        """Whether anybody looks at its answers."""
        logged = self.logger is not None and self.logger.mode is not LoggerMode.REQUEST
        return logged or any(detector.on == "response" for detector in self.detectors)

    @property
    def consumers(self) -> tuple[str, ...]:
        """Names of those who look at it."""
        logger = ("logger",) if self.logger is not None else ()
        return (*logger, *(detector.name for detector in self.detectors))

    def message(self) -> dict[str, Any]:
        """Gives it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "Subject":
        """Reads what `message` made."""
        logger = message["logger"]
        if logger is not None:
            texts = tuple(logger["metadata_headers"])
            logger = LoggerSpec(**{**logger, "mode": LoggerMode(logger["mode"]), "metadata_headers": texts})
        detectors = tuple(
            Detection(**{**detector, "categorical": tuple(detector["categorical"])})
            for detector in message["detectors"]
        )
        return cls(**{**message, "logger": logger, "detectors": detectors})
