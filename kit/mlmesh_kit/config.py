"""What every service can be told. A service's `config.py` subclasses this and sets its own prefix."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Settings that all services share; each is read from `MLMESH_<SERVICE>_<FIELD>`.

    A subclass sets `service` and `model_config = SettingsConfigDict(env_prefix="MLMESH_X_")`.
    """

    model_config = SettingsConfigDict(env_prefix="MLMESH_", extra="ignore")
    service: ClassVar[str] = ""

    host: str = Field("127.0.0.1", description="Address that both ports listen on; loopback unless told otherwise")
    grpc_port: int = Field(0, ge=0, le=65535, description="gRPC port; 0 picks a free one")
    http_port: int = Field(0, ge=0, le=65535, description="HTTP port; 0 picks a free one")
    data_dir: Path = Field(Path("~/.mlmesh"), description="Where all state lives")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the service's folder")
    artifact_root: str = Field("", description="Root URI of artifacts; empty: files under data_dir/artifacts")
    access_address: str = Field("", description="gRPC address of the profile service; empty: local user only")
    local_user: str = Field("user@mlmesh.local", description="Who a call from loopback without a header is")
    default_namespace: str = Field("default", description="Namespace meant where a request names none")
    max_message_bytes: int = Field(64 << 20, gt=0, description="Largest gRPC message, and largest HTTP body")
    max_workers: int = Field(16, gt=0, description="Threads for handlers that block")
    max_concurrent_rpcs: int = Field(1024, gt=0, description="RPCs in flight beyond which the answer is exhausted")
    access_cache_seconds: float = Field(3.0, ge=0, description="How long an access decision is remembered")
    drain_seconds: float = Field(10.0, ge=0, description="Time that calls in flight get on shutdown")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    ready_file: Path | None = Field(None, description="Written, with the bound ports as JSON, once serving")

    @property
    def root(self) -> Path:
        """The data directory, absolute."""
        return self.data_dir.expanduser().absolute()

    @property
    def service_dir(self) -> Path:
        """This service's own folder in the data directory (made on first use)."""
        path = self.root / (self.service or "service")
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    @property
    def resolved_database_url(self) -> str:
        """`database_url`, or the SQLite file of this service."""
        return self.database_url or f"sqlite:///{self.service_dir / (self.service + '.db')}"

    @property
    def resolved_artifact_root(self) -> str:
        """`artifact_root`, or the files under the data directory; never ends in a slash."""
        return (self.artifact_root or f"file://{self.root / 'artifacts'}").rstrip("/")
