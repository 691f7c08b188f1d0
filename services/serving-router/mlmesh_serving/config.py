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
    max_concurrent_inferences: int = Field(256, gt=0, description="Inferences in flight; beyond it: exhausted")

    inference_threads: int = Field(0, ge=0, le=256, description="Threads that compute; 0: one for each CPU, at least 2")

    manifest: str = Field(
        "", description="An InferenceService (JSON) that is made, or brought up to date, at the start"
    )

    @property
    def resolved_model_roots(self) -> list[str]:
        """`model_roots`, apart; or the artifact root."""
        roots = [root.strip().rstrip("/") for root in self.model_roots.split(",") if root.strip()]
        return roots or [self.resolved_artifact_root]
