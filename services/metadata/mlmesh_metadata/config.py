"""What the metadata service can be told."""

from typing import ClassVar

from mlmesh_kit.config import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    """Each is read from `MLMESH_METADATA_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_METADATA_", extra="ignore")
    service: ClassVar[str] = "metadata"

    max_request_items: int = Field(10_000, gt=0, description="Nodes, links or ids in one request")
    node_cache_mib: int = Field(32, ge=0, le=4096, description="Memory for nodes that were read; 0: none are kept")
