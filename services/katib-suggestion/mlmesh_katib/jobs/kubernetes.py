"""Trials that are resources of Kubernetes: a Job, or any custom resource whose operator is installed."""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound, ServiceError, Unavailable

from mlmesh_katib.jobs.base import Job, JobBackend, JobSpec
from mlmesh_katib.jobs.conditions import parse_conditions
from mlmesh_katib.jobs.ended import EndedJob
from mlmesh_katib.jobs.metadata import check_metadata
from mlmesh_katib.jobs.pods import OWNER, build_resource, pod_labels

if TYPE_CHECKING:
    from mlmesh_katib.jobs.cluster import Cluster

logger = logging.getLogger(__name__)

_API_VERSION = re.compile(r"[a-z0-9.-]{1,253}/v[a-z0-9]{1,62}")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")


class KubernetesBackend(JobBackend):
    """Makes resources in a cluster and follows them.

    Args:
        root: Folder of all trials; their logs go to `ID/TRIAL/log` in it.
        kubeconfig: File that says where the cluster is; empty: of the pod that we run in, or else the user's.
        context: In that file; empty: its current one.
        namespace: Kubernetes' namespace of all trials; empty: that of the experiment.
    """

    def __init__(self, root: Path, kubeconfig: str = "", context: str = "", namespace: str = "") -> None:
        self._root = root
        self._kubeconfig = kubeconfig
        self._context = context
        self._namespace = namespace
        self._cluster: Cluster | None = None

    def check(self, manifest: Mapping[str, Any], primary_container: str, where: str) -> None:
        """Checks what can be said without the cluster; what it refuses fails the trial."""
        api_version, kind = manifest.get("apiVersion"), manifest.get("kind")
        if not isinstance(api_version, str) or not _API_VERSION.fullmatch(api_version):
            raise InvalidArgument("must be GROUP/VERSION of a resource (batch/v1)", field=f"{where}.apiVersion")
        group = api_version.partition("/")[0]
        if group != "batch" and ("." not in group or group.endswith(".k8s.io")):
            # With the service's rights somebody could make themselves a role, or what nobody ends.
            raise FailedPrecondition(
                f"{where}.apiVersion: {group} has no kind that is a trial; batch/v1 Jobs and custom resources are"
            )
        if not isinstance(kind, str) or not _KIND.fullmatch(kind):
            raise InvalidArgument("must be the kind of a resource", field=f"{where}.kind")
        check_metadata(manifest, where)
        if not isinstance(manifest.get("spec"), Mapping):
            raise InvalidArgument("must be an object", field=f"{where}.spec")
        if (api_version, kind) == ("batch/v1", "Job"):
            _check_job(manifest, primary_container, f"{where}.spec")

    async def start(self, spec: JobSpec) -> Job:
        """Makes the resource. What the cluster refuses for good is a job that has failed."""
        log_path = self._log_path(spec)
        try:
            resource = await self._make(spec)
        except ServiceError as error:
            if isinstance(error, Unavailable):
                raise
            return EndedJob(f"it cannot be started: {error.message}", log_path)
        return self._follow(spec, resource)

    async def find(self, spec: JobSpec, reference: Mapping[str, Any]) -> Job | None:
        """Gives the job of a resource that is there still, running or ended.

        Raises:
            Unavailable: The cluster cannot be asked now.
        """
        if not reference.get("name"):
            return None
        place = [reference[key] for key in ("apiVersion", "kind", "namespace", "name")]
        try:
            resource = await self._ask(lambda cluster: cluster.get(*place))
        except (NotFound, FailedPrecondition):
            return None
        if resource["metadata"].get("uid", "") != reference.get("uid", ""):
            return None
        return self._follow(spec, resource)

    async def cleanup(self, spec: JobSpec, reference: Mapping[str, Any]) -> None:
        """Deletes the resource unless the template says `retain`."""
        if spec.retain or not reference.get("name"):
            return
        found = reference
        place = (found["apiVersion"], found["kind"], found["namespace"], found["name"])
        try:
            await self._ask(lambda cluster: cluster.delete(*place, found["uid"], "Background"))
        except ServiceError as error:
            logger.warning("%s of trial %s stays in the cluster: %s", found["kind"], spec.trial, error.message)

    async def _make(self, spec: JobSpec) -> dict[str, Any]:
        """Makes the resource, or gives the one that was made before the service forgot of it."""
        resource = build_resource(spec, self._namespace or spec.namespace)
        metadata = resource["metadata"]
        made = await self._ask(lambda cluster: cluster.create(resource))
        if made is None:
            place = (resource["apiVersion"], resource["kind"], metadata["namespace"], metadata["name"])
            try:
                made = await self._ask(lambda cluster: cluster.get(*place))
            except NotFound as error:  # gone since
                raise Unavailable(f"{resource['kind']} {metadata['name']} was just being deleted") from error
            owner = (made["metadata"].get("annotations") or {}).get(OWNER)
            if owner != metadata["annotations"][OWNER]:
                name = f"{resource['kind']} {metadata['namespace']}/{metadata['name']}"
                raise FailedPrecondition(f"{name} exists and is not of this experiment")
            if made["metadata"].get("deletionTimestamp"):
                raise Unavailable(f"{resource['kind']} {metadata['name']} is being deleted")
        return {"apiVersion": resource["apiVersion"], "kind": resource["kind"], **made}

    def _follow(self, spec: JobSpec, resource: dict[str, Any]) -> Job:
        from mlmesh_katib.jobs.kubernetes_job import KubernetesJob
        from mlmesh_katib.jobs.pod_logs import PodLogs

        assert self._cluster is not None  # it gave the resource
        kind = str(spec.manifest["kind"])
        conditions = parse_conditions(kind, spec.success_condition, spec.failure_condition, "spec.trialTemplate")
        path = self._log_path(spec)
        namespace = resource["metadata"]["namespace"]
        logs = PodLogs(self._cluster, namespace, pod_labels(spec), spec.primary_container, path)
        return KubernetesJob(self._cluster, resource, conditions, logs, path)

    def _log_path(self, spec: JobSpec) -> Path:
        folder = self._root / str(spec.experiment_id) / spec.trial
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "log"

    async def _ask(self, question: Callable[["Cluster"], Any]) -> Any:
        def ask() -> Any:
            if self._cluster is None:
                from mlmesh_katib.jobs.cluster import Cluster  # slow to import, and only for those who have a cluster

                self._cluster = Cluster(self._kubeconfig, self._context)
            return question(self._cluster)

        return await asyncio.to_thread(ask)


def _check_job(manifest: Mapping[str, Any], primary_container: str, where: str) -> None:
    value: Any = manifest["spec"]
    for key in ("template", "spec", "containers"):
        where += f".{key}"
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        raise InvalidArgument("must be a list of containers", field=where)
    if primary_container and primary_container not in [one.get("name") for one in value]:
        raise InvalidArgument(f"must hold a container named {primary_container!r} (primaryContainerName)", field=where)
