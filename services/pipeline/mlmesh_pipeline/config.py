"""What the pipeline service can be told."""

import os
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from mlmesh_kit import machine
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.quantity import parse_bytes
from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from mlmesh_pipeline.ir.commands import AllowedCommands
from mlmesh_pipeline.ir.container_resources import Machine

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
    packages_max_age_days: float = Field(30, gt=0, description="Installed packages not used for so long are taken away")
    packages_max_bytes: Bytes = Field(20 << 30, gt=0, description="Largest size of all packages installed for tasks")
    container_commands: str = Field(
        "", description="Programs that container components may start here as processes (sh,echo); *: any; empty: none"
    )
    preload: str = Field("kfp.dsl.executor_main,kfp.dsl", description="Modules that tasks find imported already")
    task_environment: str = Field("", description="Further variables of this process that tasks get, by name")
    pipeline_roots: str = Field(
        "", description="URIs beside the artifact root that pipeline roots may lie under (s3://bucket/prefix, by comma)"
    )
    import_roots: str = Field("*", description="URIs in object stores that inputs are read from; *: all the keys reach")
    input_cache_bytes: int = Field(10 << 30, ge=0, description="Room for inputs fetched from object stores")
    input_cache_seconds: float = Field(7 * 86400, ge=0, description="Time that a fetched input is kept unused")
    max_input_bytes: int = Field(100 << 30, gt=0, description="Largest artifact that is fetched for a task")
    transfers: int = Field(4, gt=0, le=64, description="Objects that one service sends and fetches at a time")
    store_retry_seconds: float = Field(
        300, ge=0, description="How long an attempt waits for an object store that cannot be reached"
    )
    link_seconds: int = Field(900, ge=1, le=604800, description="How long a link to an artifact is good")
    backend: Literal["local", "argo"] = Field("local", description="What runs pipelines: processes here, or Argo")
    argo_kubeconfig: str = Field("", description="Says where the cluster is; empty: the pod's own, or ~/.kube/config")
    argo_context: str = Field("", description="Context in it; empty: its current one")
    argo_namespace: str = Field("", description="Where all Workflows go; empty: each into its run's namespace")
    argo_image: str = Field("mlmesh/pipeline:0.1.0", description="Image of this service, for what it runs in pods")
    argo_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When that image is pulled"
    )
    argo_service_account: str = Field("pipeline-runner", description="Of pods, where the run names none")
    argo_s3_secret: str = Field("mlmesh-s3", description="Secret with access-key and secret-key; empty: none is needed")
    argo_volume_claim: str = Field("", description="Claim that holds ARTIFACT_ROOT in pods, where that is file://")
    argo_folder: str = Field("/mlmesh", description="Folder that is ours in the containers of pods")
    argo_ttl_seconds: int = Field(86_400, ge=0, description="How long ended Workflows stay; 0: for ever")
    argo_parallelism: int = Field(0, ge=0, description="Pods of a run at a time; 0: no limit")
    argo_instance_id: str = Field("", description="Of the Argo controller that is meant")
    argo_resync_seconds: float = Field(60, gt=0, description="How often a Workflow is looked at without a sign of it")
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
