"""What is observed: a revision of an InferenceService, with its logger and its detectors."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlmesh_serving.observers.spec import DetectorSpec, LoggerSpec


@dataclass(frozen=True, slots=True)
class Subject:
    """A revision, as those who look at it need to know it.

    Attributes:
        namespace: Of the InferenceService.
        name: Of the InferenceService.
        revision: Its number.
        endpoint: default, or canary.
        component: predictor, transformer or explainer.
        annotations: Of the InferenceService.
        logger: Payload logging; None: none.
        detectors: Of drift and outliers.
    """

    namespace: str
    name: str
    revision: int
    endpoint: str = "default"
    component: str = "predictor"
    annotations: Mapping[str, str] = field(default_factory=dict)
    logger: LoggerSpec | None = None
    detectors: tuple[DetectorSpec, ...] = ()

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
        logged = self.logger is not None and self.logger.mode != "request"
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
        detectors = [
            DetectorSpec(**{**detector, "categorical": tuple(detector["categorical"])})
            for detector in message["detectors"]
        ]
        kept = {**message, "logger": LoggerSpec(**logger) if logger else None, "detectors": tuple(detectors)}
        return cls(**kept)
