"""What the serving router can be told."""

from pathlib import Path
from typing import ClassVar

from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.interceptor import is_loopback
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from mlmesh_serving.remote.connections import read_credentials
from mlmesh_serving.remote.headers import parse_patterns
from mlmesh_serving.remote.hosts import LOOPBACK, AllowedHosts, parse_hosts


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

    remote_hosts: str | None = Field(
        None,
        description="Hosts that manifests may name (remote stages, serviceUrl), separated by commas: names, "
        "*.example.com, IP addresses, networks; *: all but link-local ones. Not set: loopback, if the service "
        "listens there alone; else none",
    )
    propagate_headers: str = Field(
        "",
        description="Regular expressions, separated by commas: headers of requests that go on to remote stages and to "
        "the steps of graphs (KServe's PROPAGATE_HEADERS)",
    )
    remote_credentials_file: Path | None = Field(
        None, description='JSON, {"host:port": {"authorization": "Bearer ..."}}: headers for that server alone'
    )
    remote_ca_file: Path | None = Field(None, description="PEM of the authorities trusted for grpcs and https")

    @field_validator("remote_hosts")
    @classmethod
    def _check_hosts(cls, value: str | None) -> str | None:
        parse_hosts(value or "")
        return value

    @field_validator("propagate_headers")
    @classmethod
    def _check_patterns(cls, value: str) -> str:
        parse_patterns(value)
        return value

    @field_validator("remote_credentials_file")
    @classmethod
    def _check_credentials(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_credentials(value)
        return value

    @field_validator("remote_ca_file")
    @classmethod
    def _check_ca_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is no file")
        return value

    @property
    def allowed_hosts(self) -> AllowedHosts:
        """`remote_hosts`, parsed."""
        if self.remote_hosts is None:
            return parse_hosts(LOOPBACK if is_loopback(self.host) else "")
        return parse_hosts(self.remote_hosts)

    @property
    def resolved_model_roots(self) -> list[str]:
        """`model_roots`, apart; or the artifact root."""
        roots = [root.strip().rstrip("/") for root in self.model_roots.split(",") if root.strip()]
        return roots or [self.resolved_artifact_root]
