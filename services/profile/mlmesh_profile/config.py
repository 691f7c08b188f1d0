"""What the profile service can be told."""

from typing import ClassVar

from mlmesh_kit.config import ServiceSettings
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from mlmesh_profile.profile import is_user


class Settings(ServiceSettings):
    """Each is read from `MLMESH_PROFILE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_PROFILE_", extra="ignore")
    service: ClassVar[str] = "profile"

    administrators: str = Field("", description="Users who may do everything, separated by commas")
    local_profile: bool = Field(True, description="Give the local user the default profile at start")
    registration: bool = Field(True, description="Users may make profiles of their own; else only administrators")
    automatic_profiles: bool = Field(False, description="Give a user who owns no profile one at their first login")
    max_profiles_per_user: int = Field(100, gt=0, description="Profiles that one user may own")
    max_contributors_per_profile: int = Field(1000, gt=0, description="Contributors of one profile")
    freshness_seconds: float = Field(0.25, ge=0, le=3, description="How stale an access decision may be")
    access_cache_seconds: float = Field(0.0, ge=0, description="Not needed here: the reviewer is in the process")

    @field_validator("administrators")
    @classmethod
    def _users(cls, value: str) -> str:
        for user in filter(None, (part.strip() for part in value.split(","))):
            if not is_user(user):
                raise ValueError(f"{user!r} is not a user's name")
        return value

    @property
    def administrator_names(self) -> frozenset[str]:
        """`administrators`, apart."""
        return frozenset(filter(None, (part.strip() for part in self.administrators.split(","))))
