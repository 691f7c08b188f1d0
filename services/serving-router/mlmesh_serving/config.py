"""What the serving router can be told."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mlmesh_serving.observers.config import BesideSettings
from mlmesh_serving.protection.admission import AdmissionLimits
from mlmesh_serving.protection.front import FrontSettings
from mlmesh_serving.scaling.activator import QueueLimits
from mlmesh_serving.scaling.spec import AutoscalerSettings
from mlmesh_serving.storage import StorageConfig


class Settings(BesideSettings):
    """Each is read from `MLMESH_SERVING_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_SERVING_", extra="ignore", protected_namespaces=())
    service: ClassVar[str] = "serving-router"

    model_roots: str = Field(
        "",
        description="URIs of files and object stores below which models and stages are loaded from, separated by "
        "commas; empty: the artifact root",
    )
    pickle_roots: str = Field(
        "",
        description="URIs (also of http and https) below which what can run code is loaded from: pickles, TorchScript, "
        "Python code. Only roots whose writers you trust; separated by commas; empty: the artifact root",
    )
    model_hosts: str = Field(
        "",
        description="Hosts that models are fetched from by http and https (example.com,files.example.com:8443); "
        "*: every host with a public address; empty: none",
    )
    max_model_bytes: int = Field(4 << 30, gt=0, description="Largest model, also when unpacked")
    max_model_files: int = Field(10_000, gt=0, description="Most files of one model")
    model_cache_bytes: int = Field(16 << 30, gt=0, description="Of all models that were downloaded and are kept")
    model_cache_seconds: float = Field(30 * 86_400.0, gt=0, description="How long one is kept that nobody uses")
    model_download_seconds: float = Field(600.0, gt=0, description="How long a download by http or https may take")
    metadata_address: str = Field("", description="gRPC address of the metadata service; empty: no mlmd:// URIs")
    max_tensor_elements: int = Field(16_000_000, gt=0, description="Elements of one tensor")
    max_tensors: int = Field(64, gt=0, description="Tensors of one request")
    max_concurrent_inferences: int = Field(
        256, gt=0, description="Inferences of a model in flight; beyond it: exhausted"
    )

    max_replicas: int = Field(
        0, ge=0, le=1024, description="Worker processes of all models together; 0: two for each CPU, at least 4"
    )
    max_in_flight: int = Field(10_000, ge=0, description="Inferences of all models in flight; beyond it: exhausted")
    max_waiting: int = Field(1000, gt=0, description="Inferences that wait for a worker of one model")
    max_waiting_bytes: int = Field(64 << 20, gt=0, description="Of their bodies")
    refuse_early: bool = Field(True, description="Refuse at once what would be answered after its deadline")
    scale_to_zero_grace_seconds: float = Field(
        30.0, ge=0, description="How long the last worker of a model that nobody asks stays, after the stable window"
    )
    max_scale_up_rate: float = Field(1000.0, gt=1, description="Most workers in one step, by those that are ready")
    max_scale_down_rate: float = Field(2.0, gt=1, description="Ready workers by the fewest in one step")
    worker_threads: int = Field(1, ge=1, le=256, description="Threads of numerical libraries in a worker")
    worker_start_seconds: float = Field(120.0, gt=0, description="Longest time that loading a model may take")
    worker_memory_bytes: int = Field(
        0, ge=0, description="Resident memory of a worker beyond which another takes its place; 0: no limit"
    )
    inference_seconds: float = Field(300.0, gt=0, description="What an inference without a deadline may take")
    hang_seconds: float = Field(
        10.0, gt=0, description="How much longer than its deadline an inference may take before its worker is killed"
    )
    crash_retries: int = Field(
        1, ge=0, le=3, description="How often an inference is tried again, by itself, when its worker ended meanwhile"
    )
    max_batch_rows: int = Field(256, ge=1, description="Rows that a model is given at once; 1: requests are not joined")

    revisions_kept: int = Field(
        10, ge=1, description="Newest revisions of a model that are kept, beside those that requests go to"
    )
    manifest: str = Field(
        "", description="An InferenceService (JSON) that is made, or brought up to date, at the start"
    )

    @property
    def fronts(self) -> FrontSettings:
        """What stands before all revisions."""
        return FrontSettings(
            timeout_seconds=self.inference_seconds,
            queue=QueueLimits(self.max_waiting, self.max_waiting_bytes),
            admission=AdmissionLimits(self.max_concurrent_inferences, self.max_in_flight, self.refuse_early),
            autoscaler=AutoscalerSettings(
                self.max_scale_up_rate, self.max_scale_down_rate, self.scale_to_zero_grace_seconds
            ),
        )

    @property
    def storage(self) -> StorageConfig:
        """Where models come from."""
        return StorageConfig(
            model_roots=_roots(self.model_roots) or [self.resolved_artifact_root],
            pickle_roots=_roots(self.pickle_roots) or [self.resolved_artifact_root],
            hosts=self.model_hosts,
            cache_dir=self.service_dir / "models",
            max_model_bytes=self.max_model_bytes,
            max_model_files=self.max_model_files,
            cache_bytes=self.model_cache_bytes,
            cache_seconds=self.model_cache_seconds,
            download_seconds=self.model_download_seconds,
            metadata_address=self.metadata_address,
            user=self.local_user,
        )


def _roots(text: str) -> list[str]:
    return [root.strip().rstrip("/") for root in text.split(",") if root.strip()]
