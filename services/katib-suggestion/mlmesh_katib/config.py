"""What the Katib service can be told."""

import os
from typing import ClassVar, Literal

from mlmesh_kit.config import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    """Each is read from `MLMESH_KATIB_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_KATIB_", extra="ignore")
    service: ClassVar[str] = "katib-suggestion"

    metadata_address: str = Field("", description="gRPC address of the metadata service; empty: lineage waits")
    pipeline_address: str = Field("", description="gRPC address of the pipeline service; empty: trials are no runs")
    db_manager_addresses: str = Field(
        "", description="Katib database managers, host:port,..., whose reports early stopping may read; empty: our own"
    )
    backend: Literal["local", "kubernetes"] = Field("local", description="Where trials that are batch/v1 Jobs run")
    kubernetes_kubeconfig: str = Field("", description="Says where the cluster is; empty: the pod's, or ~/.kube/config")
    kubernetes_context: str = Field("", description="Context in it; empty: its current one")
    kubernetes_namespace: str = Field("", description="Where all trials go; empty: into the experiment's")
    ingress_url: str = Field("http://127.0.0.1:8080", description="Where trials find the mesh (MLMESH_INGRESS)")
    max_running_trials: int = Field(
        max(2, os.cpu_count() or 2), gt=0, description="Trials of all experiments that run at once on this machine"
    )
    max_trials: int = Field(10_000, gt=0, description="Largest maxTrialCount; also where none is given")
    trial_timeout_seconds: float = Field(86_400, gt=0, description="Longest life of a trial")
    trial_memory_bytes: int = Field(0, ge=0, description="Memory of a trial's processes together; 0: no limit")
    trial_processes: int = Field(4096, ge=0, description="Processes and threads of a trial; 0: no limit")
    max_log_bytes: int = Field(64 << 20, ge=64 << 10, description="Largest log; of more, the middle is dropped")
    max_model_bytes: int = Field(1 << 30, gt=0, description="Largest model of a trial that is kept")
    pipeline_user: str = Field("", description="On whose behalf trials make runs of pipelines; empty: LOCAL_USER")
    preload: str = Field(
        "numpy,sklearn.svm", description="Modules that Python trials find imported already, separated by commas"
    )
    lease_seconds: float = Field(15, gt=1, description="How long work is held without a sign of life")

    @property
    def allowed_db_managers(self) -> tuple[str, ...]:
        """`db_manager_addresses`, apart."""
        return tuple(filter(None, (address.strip() for address in self.db_manager_addresses.split(","))))

    @property
    def preload_modules(self) -> tuple[str, ...]:
        """`preload`, apart."""
        return tuple(filter(None, (name.strip() for name in self.preload.split(","))))
