"""What the serving router can be told."""

from typing import ClassVar

from mlmesh_kit.config import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


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

    @property
    def resolved_model_roots(self) -> list[str]:
        """`model_roots`, apart; or the artifact root."""
        roots = [root.strip().rstrip("/") for root in self.model_roots.split(",") if root.strip()]
        return roots or [self.resolved_artifact_root]
