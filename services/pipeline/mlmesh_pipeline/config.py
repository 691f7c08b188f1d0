"""What the pipeline service can be told."""

import os
from functools import cached_property
from typing import Annotated, ClassVar

from mlmesh_kit import machine
from mlmesh_kit.config import ServiceSettings
from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from mlmesh_pipeline.ir.commands import AllowedCommands
from mlmesh_pipeline.ir.container_resources import Machine
from mlmesh_pipeline.ir.quantity import parse_bytes

Bytes = Annotated[int, BeforeValidator(parse_bytes)]


class Settings(ServiceSettings):
    """Settings, each read from `MLMESH_PIPELINE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_PIPELINE_", extra="ignore")
    service: ClassVar[str] = "pipeline"

    metadata_address: str = Field("", description="gRPC address of the metadata service; empty: no lineage is written")
    ingress_url: str = Field("http://127.0.0.1:8080", description="Given to tasks as MLMESH_INGRESS")
    max_parallel_tasks: int = Field(
        0, ge=0, description="Tasks that ask for no CPUs, at a time; 0: as many as there are CPUs, at least 2"
    )
    cpus: float = Field(0, ge=0, description="CPUs that tasks may ask for, together; 0: those that there are")
    memory: Bytes = Field(0, ge=0, description="Memory that tasks may ask for, together (16Gi); 0: what there is")
    max_task_memory: Bytes = Field(0, ge=0, description="Most memory that a task may use; 0: four fifths of MEMORY")
    max_task_processes: int = Field(
        0, ge=0, description="Most processes and threads of a task; 0: 256 for each CPU, at least 1024"
    )
    max_task_open_files: int = Field(16384, ge=64, description="Most open files of each process of a task")
    max_task_disk: Bytes = Field(
        0, ge=0, description="Most that an attempt may write to the disk; 0: nine tenths of what is free as it starts"
    )
    max_log_bytes: Bytes = Field(64 << 20, ge=64 << 10, description="Largest log; of more, the middle is dropped")
    task_nice: int = Field(5, ge=0, le=19, description="How much tasks stand back for the service")
    max_active_runs: int = Field(100, gt=0, description="Runs that one service drives at a time; more wait")
    max_loop_items: int = Field(10_000, gt=0, description="Most iterations of one ParallelFor")
    max_package_bytes: int = Field(32 << 20, gt=0, description="Largest uploaded pipeline package, also when unpacked")
    task_timeout_seconds: float = Field(0, ge=0, description="Time that an attempt of a task gets; 0: no limit")
    terminate_grace_seconds: float = Field(5, ge=0, description="Time between TERM and KILL for a task")
    lease_seconds: float = Field(10, gt=0, description="How long a run stays with a service that gives no sign of life")
    scan_seconds: float = Field(
        2, gt=0, description="How often runs without a driver and wishes to terminate are looked for"
    )
    cron_schedule_timezone: str = Field("UTC", description="Where the clock of recurring runs' cron expressions hangs")
    install_packages: bool = Field(True, description="Whether packages_to_install that are missing are installed")
    packages_max_age_days: float = Field(30, gt=0, description="Installed packages not used for so long are taken away")
    packages_max_bytes: Bytes = Field(20 << 30, gt=0, description="Largest size of all packages installed for tasks")
    container_commands: str = Field(
        "", description="Programs that container components may start here as processes (sh,echo); *: any; empty: none"
    )
    preload: str = Field("kfp.dsl.executor_main,kfp.dsl", description="Modules that tasks find imported already")
    task_environment: str = Field("", description="Further variables of this process that tasks get, by name")
    outbox_retry_seconds: float = Field(2, gt=0, description="Time between tries while the metadata service is away")

    @property
    def parallel_tasks(self) -> int:
        """`max_parallel_tasks`, or what this machine can do."""
        return self.max_parallel_tasks or max(2, self.machine.millicpus // 1000)

    @cached_property
    def machine(self) -> Machine:
        """What tasks may ask for."""
        return Machine(int((self.cpus or machine.cpu_count()) * 1000), self.memory or machine.memory_bytes())

    @property
    def allowed_commands(self) -> AllowedCommands:
        """What `container_commands` says."""
        names = frozenset(name.strip() for name in self.container_commands.split(",") if name.strip())
        return AllowedCommands(names, os.environ.get("PATH", os.defpath))
