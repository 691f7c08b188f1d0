"""What the serving router can be told."""

from typing import ClassVar

from mlmesh_kit.config import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mlmesh_serving.observers.settings import ObserverSettings


class Settings(ServiceSettings):
    """Each is read from `MLMESH_SERVING_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_SERVING_", extra="ignore", protected_namespaces=())
    service: ClassVar[str] = "serving-router"

    model_roots: str = Field(
        "",
        description="Roots that models and stages are loaded from, separated by commas; empty: the artifact root. "
        "Loading runs code (pickles, stages), so name only roots whose writers you trust",
    )
    max_tensor_elements: int = Field(16_000_000, gt=0, description="Elements of one tensor")
    max_tensors: int = Field(64, gt=0, description="Tensors of one request")
    max_concurrent_inferences: int = Field(
        256, gt=0, description="Inferences of a model in flight; beyond it: exhausted"
    )

    workers: int = Field(1, ge=1, le=64, description="Worker processes of each model")
    worker_threads: int = Field(1, ge=1, le=256, description="Threads of numerical libraries in a worker")
    worker_start_seconds: float = Field(120.0, gt=0, description="Longest time that loading a model may take")
    worker_memory_bytes: int = Field(
        0, ge=0, description="Resident memory of a worker beyond which another takes its place; 0: no limit"
    )
    inference_seconds: float = Field(300.0, gt=0, description="What an inference without a deadline may take")
    hang_seconds: float = Field(
        10.0, gt=0, description="How much longer than its deadline an inference may take before its worker is killed"
    )
    max_batch_rows: int = Field(256, ge=1, description="Rows that a model is given at once; 1: requests are not joined")

    sink_hosts: str = Field(
        "localhost,127.0.0.1,::1",
        description="Hosts that payloads and findings may be sent to (host, host:port, *.domain), separated by commas",
    )
    log_roots: str = Field(
        "",
        description="URIs of folders and buckets that payloads may be written below, separated by commas; empty: "
        "payload-logs below the artifact root",
    )
    log_url: str = Field("", description="Where payloads go whose InferenceService says only that they are logged")
    log_keep_bytes: int = Field(1 << 30, ge=0, description="Of the payload files of one InferenceService; 0: all")
    redact_headers: str = Field("", description="Headers that are never logged, beside authorization, cookie and such")
    redact_fields: str = Field("", description="Tensors and JSON fields that are never logged, separated by commas")
    observer_queue_items: int = Field(2048, gt=0, description="Predictions that may wait to be looked at")
    observer_queue_bytes: int = Field(32 << 20, gt=0, description="Bytes of these predictions")
    observer_payload_bytes: int = Field(4 << 20, gt=0, description="Largest prediction that is looked at")
    observer_memory_bytes: int = Field(2 << 30, ge=0, description="Of the process that looks at predictions; 0: any")
    observer_nice: int = Field(19, ge=0, le=19, description="How much that process stands back for the others")
    explainer_memory_bytes: int = Field(4 << 30, ge=0, description="Of a process that explains; 0: no limit")

    @property
    def observers(self) -> ObserverSettings:
        """What the observers are told."""
        return ObserverSettings(
            folder=self.service_dir / "observers",
            sink_hosts=_listed(self.sink_hosts),
            log_roots=_listed(self.log_roots) or [f"{self.resolved_artifact_root}/payload-logs"],
            default_url=self.log_url,
            redact_headers=_listed(self.redact_headers),
            redact_fields=_listed(self.redact_fields),
            queue_items=self.observer_queue_items,
            queue_bytes=self.observer_queue_bytes,
            max_payload_bytes=self.observer_payload_bytes,
            memory_bytes=self.observer_memory_bytes,
            nice=self.observer_nice,
            log_keep_bytes=self.log_keep_bytes,
            max_elements=self.max_tensor_elements,
            max_tensors=self.max_tensors,
        )

    @property
    def resolved_model_roots(self) -> list[str]:
        """`model_roots`, apart; or the artifact root."""
        roots = [root.strip().rstrip("/") for root in self.model_roots.split(",") if root.strip()]
        return roots or [self.resolved_artifact_root]


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
