"""Which backend runs a trial: by the kind of its resource."""

from collections.abc import Mapping
from typing import Any

from mlmesh_katib.jobs.base import Job, JobBackend, JobSpec
from mlmesh_katib.jobs.pipeline import API_VERSION as PIPELINE_API_VERSION
from mlmesh_katib.jobs.pipeline import KIND as PIPELINE_KIND


class RoutingBackend(JobBackend):
    """Gives each trial to the backend that is for it.

    Args:
        jobs: For `batch/v1` Jobs.
        pipelines: For runs of pipelines.
        resources: For all other kinds.
    """

    def __init__(self, jobs: JobBackend, pipelines: JobBackend, resources: JobBackend) -> None:
        self._jobs = jobs
        self._pipelines = pipelines
        self._resources = resources

    def backend_of(self, manifest: Mapping[str, Any]) -> JobBackend:
        """Gives the backend for a `trialSpec`."""
        kind = (manifest.get("apiVersion"), manifest.get("kind"))
        if kind == ("batch/v1", "Job"):
            return self._jobs
        if kind == (PIPELINE_API_VERSION, PIPELINE_KIND):
            return self._pipelines
        return self._resources

    def check(self, manifest: Mapping[str, Any], primary_container: str, where: str) -> None:
        """Checks a `trialSpec` by its backend."""
        self.backend_of(manifest).check(manifest, primary_container, where)

    async def start(self, spec: JobSpec) -> Job:
        """Starts a trial by its backend."""
        return await self.backend_of(spec.manifest).start(spec)

    async def find(self, spec: JobSpec, reference: Mapping[str, Any]) -> Job | None:
        """Finds a trial by its backend."""
        return await self.backend_of(spec.manifest).find(spec, reference)

    async def cleanup(self, spec: JobSpec, reference: Mapping[str, Any]) -> None:
        """Removes what its backend left of a trial."""
        await self.backend_of(spec.manifest).cleanup(spec, reference)
