"""Kinds of trials that nothing here runs."""

from collections.abc import Mapping
from typing import Any

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_katib.jobs.base import Job, JobBackend, JobSpec


class RefusedBackend(JobBackend):
    """Stands for a cluster that is not configured."""

    def check(self, manifest: Mapping[str, Any], primary_container: str, where: str) -> None:
        """Refuses."""
        kind = f"{manifest.get('kind')} ({manifest.get('apiVersion')})"
        raise FailedPrecondition(
            f"{where}: {kind} needs the Kubernetes backend (BACKEND or KUBERNETES_KUBECONFIG), which is not there; "
            "locally a trial is a Job (batch/v1)"
        )

    async def start(self, spec: JobSpec) -> Job:
        """Refuses: the experiment was made when a cluster was configured."""
        self.check(spec.manifest, spec.primary_container, "trialSpec")
        raise AssertionError

    async def find(self, spec: JobSpec, reference: Mapping[str, Any]) -> Job | None:
        """Refuses: what may run there cannot be cleared away from here."""
        self.check(spec.manifest, spec.primary_container, "trialSpec")
        return None
