"""What an InferenceService asks for, as values."""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from mlmesh_serving.datatypes import TensorInfo
from mlmesh_serving.predictors.options import PredictorOptions


class Feature(StrEnum):
    """What a manifest may ask for, and a process may be built without: refused then, never ignored."""

    BATCHER = "batcher"
    CANARY = "canaryTrafficPercent"
    CONCURRENCY = "containerConcurrency"
    DETECTORS = "detectors"
    ENV = "env"
    EXPLAINER = "explainer"
    LOGGER = "logger"
    REMOTE = "remote"
    TIMEOUT = "timeout"
    TRANSFORMER = "transformer"


class Protocol(StrEnum):
    """How a server elsewhere is asked, in KServe's words."""

    V1 = "v1"
    """REST, `/v1/models/{model}:predict`."""
    V2 = "v2"
    """The Open Inference Protocol by REST."""
    GRPC_V2 = "grpc-v2"
    """The Open Inference Protocol by gRPC."""


class ScaleMetric(StrEnum):
    """What Knative's pod autoscaler watches."""

    CONCURRENCY = "concurrency"
    """Requests in flight, for each replica."""
    RPS = "rps"
    """Requests a second, for each replica."""


class LoggerMode(StrEnum):
    """Which payloads are logged."""

    ALL = "all"
    REQUEST = "request"
    RESPONSE = "response"


@dataclasses.dataclass(frozen=True, slots=True)
class RemoteSpec:
    """A server elsewhere.

    Attributes:
        url: `http(s)://host[:port][/path]` by REST, `grpc(s)://host:port` by gRPC.
        protocol: How it is asked.
        model: Name of the model there; empty: that of the InferenceService.
        version: Of the model there; empty: the server chooses.
        timeout_seconds: Of a call; None: what the request has left.
        field: Where the manifest says so, for messages.
        openai: Path of its OpenAI routes, below the URL; empty: it has none.
    """

    url: str
    protocol: Protocol
    model: str
    version: str
    timeout_seconds: float | None
    field: str
    openai: str = ""

    @property
    def is_grpc(self) -> bool:
        """Whether it is asked by gRPC."""
        return self.protocol is Protocol.GRPC_V2


@dataclasses.dataclass(frozen=True, slots=True)
class StageSpec:
    """A preprocessor, a postprocessor, or both (a transformer): Python code, or a server elsewhere.

    Attributes:
        target: `module:Class` or `module:function`; empty for a server elsewhere.
        storage_uri: The folder that the module lies in; empty for a server elsewhere.
        field: Where the manifest says so, for messages.
        remote: The server elsewhere.
    """

    target: str
    storage_uri: str
    field: str
    remote: RemoteSpec | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class PredictorSpec:
    """The model, or a server elsewhere that has it.

    Attributes:
        format: Name of the model format, as KServe has it (sklearn, xgboost, lightgbm, onnx, pytorch, mlflow, ...),
            `python` for any class, `remote` for a server elsewhere.
        storage_uri: A model file, or the folder it lies in; empty for a server elsewhere.
        options: How it is loaded.
        where: Where the manifest says all this, for messages.
        env: Environment variables of the process that has the model.
        runtime: KServe's ServingRuntime; on Kubernetes alone.
        protocol_version: KServe's protocolVersion; on Kubernetes alone, here a model answers all that are served.
        remote: The server elsewhere.
    """

    format: str
    storage_uri: str
    options: PredictorOptions
    where: str
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    runtime: str = ""
    protocol_version: str = ""
    remote: RemoteSpec | None = None

    @property
    def field(self) -> str:
        """Where the manifest says the storageUri, for messages."""
        return f"{self.where}.storageUri"


@dataclasses.dataclass(frozen=True, slots=True)
class ScalingSpec:
    """How many replicas, by Knative's pod autoscaler (KPA); its defaults.

    Attributes:
        min_replicas: At least; 0: the last one ends when nothing asks.
        max_replicas: At most; 0: no bound.
        initial_replicas: When a revision begins.
        activation_replicas: When it comes from zero, at least.
        metric: What is watched.
        target: Of the metric, for each replica; None: 100 requests in flight, or 200 a second.
        target_utilization: Share of the target that is aimed at, above 0 to 1.
        window_seconds: Stable window.
        panic_window_percentage: Of the stable window.
        panic_threshold_percentage: Of what the replicas that are ready can take.
        scale_down_delay_seconds: How long less has to be asked for before there is less.
        zero_retention_seconds: How long the last replica stays at least when zero is decided.
        burst_capacity: Requests that may come at once on top of the load; -1: any number. While replicas have no room
            for it, requests wait where replicas are started.
    """

    min_replicas: int = 1
    max_replicas: int = 0
    initial_replicas: int = 1
    activation_replicas: int = 1
    metric: ScaleMetric = ScaleMetric.CONCURRENCY
    target: float | None = None
    target_utilization: float = 0.7
    window_seconds: float = 60.0
    panic_window_percentage: float = 10.0
    panic_threshold_percentage: float = 200.0
    scale_down_delay_seconds: float = 0.0
    zero_retention_seconds: float = 0.0
    burst_capacity: float = 211.0


@dataclasses.dataclass(frozen=True, slots=True)
class BatcherSpec:
    """How requests are joined.

    Attributes:
        max_batch_size: Rows of a batch at most.
        max_latency_seconds: How long a request may wait for others; 0: joined is what waits when a worker is free.
        timeout_seconds: Of a batch.
    """

    max_batch_size: int = 32
    max_latency_seconds: float = 0.0
    timeout_seconds: float = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class LoggerSpec:
    """Payload logging as CloudEvents.

    Attributes:
        mode: Which payloads.
        url: Where they are sent, http(s), or a folder that they are written to, file, s3 or minio; empty: where the
            service sends those of all models.
        metadata_headers: Headers of a request that go with it, in lower case.
        metadata_annotations: Annotations of the InferenceService that go with it.
        storage_path: Of a folder: the folder below that of the component.
        field: Where the manifest says so, for messages.
    """

    mode: LoggerMode
    url: str
    metadata_headers: tuple[str, ...]
    metadata_annotations: Mapping[str, str]
    field: str
    storage_path: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Something that watches what a model is asked and answers: outliers, drift.

    Attributes:
        name: Of the detector; unique in the InferenceService.
        type: Which one.
        storage_uri: What it was fitted on, or its state; empty: nothing.
        parameters: Of its type.
        field: Where the manifest says so, for messages.
    """

    name: str
    type: str
    storage_uri: str
    parameters: Mapping[str, Any]
    field: str


@dataclasses.dataclass(frozen=True, slots=True)
class ExplainerSpec:
    """What answers `:explain`.

    Attributes:
        type: shap, permutation, occlusion; python or remote for `stage`.
        storage_uri: Background data, or a fitted explainer; empty: none.
        parameters: Of its type.
        stage: A class of the user's, or a server elsewhere.
        field: Where the manifest says so, for messages.
    """

    type: str
    storage_uri: str
    parameters: Mapping[str, Any]
    stage: StageSpec | None
    field: str


@dataclasses.dataclass(frozen=True, slots=True)
class InferenceServiceSpec:
    """What is served.

    Attributes:
        inputs: What the first stage takes; empty: not declared.
        outputs: What the last stage gives; empty: not declared.
        transformer: KServe's transformer: a class with `preprocess` and `postprocess`, or a server elsewhere.
        explainer: What answers `:explain`; None: nothing.
        detectors: What watches.
        batcher: None: requests are joined as they come, by the service's settings.
        logger: None: payloads are not logged.
        scaling: Number of replicas.
        container_concurrency: Requests that a replica takes at once at most; 0: no limit.
        timeout_seconds: Of a request; None: the service's.
        canary_percent: Share of the requests that the newest revision gets; None: all, once it is ready.
        annotations: Of the InferenceService, with those of the predictor over them.
    """

    name: str
    predictor: PredictorSpec
    preprocessor: StageSpec | None
    postprocessor: StageSpec | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    transformer: StageSpec | None = None
    explainer: ExplainerSpec | None = None
    detectors: tuple[DetectorSpec, ...] = ()
    batcher: BatcherSpec | None = None
    logger: LoggerSpec | None = None
    scaling: ScalingSpec = dataclasses.field(default_factory=ScalingSpec)
    container_concurrency: int = 0
    timeout_seconds: float | None = None
    canary_percent: int | None = None
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
