"""What the pipeline service can be told."""

import os
from typing import ClassVar

from mlmesh_kit.config import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mlmesh_pipeline.ir.commands import AllowedCommands


class Settings(ServiceSettings):
    """Settings, each read from `MLMESH_PIPELINE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_PIPELINE_", extra="ignore")
    service: ClassVar[str] = "pipeline"

    metadata_address: str = Field("", description="gRPC address of the metadata service; empty: no lineage is written")
    ingress_url: str = Field("http://127.0.0.1:8080", description="Given to tasks as MLMESH_INGRESS")
    max_parallel_tasks: int = Field(
        0, ge=0, description="Tasks that run at a time; 0: as many as there are CPUs, at least 2"
    )
    max_active_runs: int = Field(100, gt=0, description="Runs that one service drives at a time; more wait")
    max_loop_items: int = Field(10_000, gt=0, description="Most iterations of one ParallelFor")
    max_package_bytes: int = Field(32 << 20, gt=0, description="Largest uploaded pipeline package, also when unpacked")
    package_hosts: str = Field(
        "",
        description="Hosts that packages are fetched from by package_url (example.com,files.example.com:8443); "
        "*: every host with a public address; empty: none",
    )
    task_timeout_seconds: float = Field(0, ge=0, description="Time that an attempt of a task gets; 0: no limit")
    terminate_grace_seconds: float = Field(5, ge=0, description="Time between TERM and KILL for a task")
    lease_seconds: float = Field(10, gt=0, description="How long a run stays with a service that gives no sign of life")
    scan_seconds: float = Field(
        2, gt=0, description="How often runs without a driver and wishes to terminate are looked for"
    )
    cron_schedule_timezone: str = Field("UTC", description="Where the clock of recurring runs' cron expressions hangs")
    install_packages: bool = Field(True, description="Whether packages_to_install that are missing are installed")
    container_commands: str = Field(
        "", description="Programs that container components may start here as processes (sh,echo); *: any; empty: none"
    )
    preload: str = Field("kfp.dsl.executor_main,kfp.dsl", description="Modules that tasks find imported already")
    task_environment: str = Field("", description="Further variables of this process that tasks get, by name")
    outbox_retry_seconds: float = Field(2, gt=0, description="Time between tries while the metadata service is away")

    @property
    def parallel_tasks(self) -> int:
        """`max_parallel_tasks`, or what this machine can do."""
        return self.max_parallel_tasks or max(2, os.cpu_count() or 2)

    @property
    def allowed_commands(self) -> AllowedCommands:
        """What `container_commands` says."""
        names = frozenset(name.strip() for name in self.container_commands.split(",") if name.strip())
        return AllowedCommands(names, os.environ.get("PATH", os.defpath))
