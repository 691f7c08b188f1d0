"""Trials that are runs of a pipeline: `mlmesh.dev/v1` `PipelineRun`.

apiVersion: mlmesh.dev/v1
kind: PipelineRun
spec:
  pipelineName: train            # or pipelineId, or pipelineSpec with the IR in it
  pipelineVersion: v2            # or pipelineVersionId; without, the latest
  runtimeConfig:
    parameters: {rate: "${trialParameters.rate}"}
    pipelineRoot: s3://...       # optional
  serviceAccount: ...            # optional
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, ServiceError, Unavailable

from mlmesh_katib.jobs.base import Job, JobBackend, JobSpec
from mlmesh_katib.jobs.ended import EndedJob
from mlmesh_katib.jobs.pipeline_values import definitions_of, typed

if TYPE_CHECKING:
    from mlmesh_katib.jobs.pipeline_client import PipelineClient

API_VERSION = "mlmesh.dev/v1"
KIND = "PipelineRun"
_SOURCES = ("pipelineSpec", "pipelineName", "pipelineId")
_TEXTS = ("pipelineName", "pipelineId", "pipelineVersion", "pipelineVersionId", "serviceAccount")
_FIELDS = {*_SOURCES, *_TEXTS, "runtimeConfig"}
_RUNTIME_FIELDS = {"parameters", "pipelineRoot"}


class PipelineBackend(JobBackend):
    """Makes runs of pipelines and follows them.

    Args:
        root: Folder of all trials; what the tasks of a trial do is written to `ID/TRIAL/log` in it.
        address: Of the pipeline service; empty: there is none.
        user: On whose behalf runs are made.
    """

    def __init__(self, root: Path, address: str, user: str) -> None:
        self._root = root
        self._address = address
        self._user = user
        self._opened: PipelineClient | None = None

    def check(self, manifest: Mapping[str, Any], primary_container: str, where: str) -> None:
        """Checks the shape, and parameters against a pipeline that is in the manifest."""
        if not self._address:
            raise FailedPrecondition(f"{where}: no pipeline service is configured (PIPELINE_ADDRESS)")
        spec = _object(manifest.get("spec"), f"{where}.spec")
        _known(spec, _FIELDS, f"{where}.spec")
        given = [key for key in _SOURCES if spec.get(key)]
        if len(given) != 1:
            raise InvalidArgument(f"must have exactly one of {', '.join(_SOURCES)}", field=f"{where}.spec")
        for key in _TEXTS:
            if not isinstance(spec.get(key, ""), str):
                raise InvalidArgument("must be a string", field=f"{where}.spec.{key}")
        if spec.get("pipelineVersion") and spec.get("pipelineVersionId"):
            raise InvalidArgument("must not be given beside pipelineVersion", field=f"{where}.spec.pipelineVersionId")
        for key in ("pipelineVersion", "pipelineVersionId"):
            if given == ["pipelineSpec"] and spec.get(key):
                raise InvalidArgument("must not be given beside pipelineSpec", field=f"{where}.spec.{key}")
        at = f"{where}.spec.runtimeConfig"
        config = _object(spec.get("runtimeConfig", {}), at)
        _known(config, _RUNTIME_FIELDS, at)
        if not isinstance(config.get("pipelineRoot", ""), str):
            raise InvalidArgument("must be a string", field=f"{at}.pipelineRoot")
        parameters = _object(config.get("parameters", {}), f"{at}.parameters")
        if given == ["pipelineSpec"]:
            declared = definitions_of(_object(spec["pipelineSpec"], f"{where}.spec.pipelineSpec"), "inputDefinitions")
            for name in parameters:
                if name not in declared:
                    there = ", ".join(sorted(declared)) or "none"
                    raise InvalidArgument(
                        f"the pipeline has no such parameter; it has: {there}", field=f"{at}.parameters.{name}"
                    )

    async def start(self, spec: JobSpec) -> Job:
        """Makes a run, or gives the one that was made before the service forgot of it.

        What the pipeline service refuses for good is a job that has failed.
        """
        path = self._log_path(spec)
        try:
            return await self._start(spec, path)
        except ServiceError as error:
            if isinstance(error, Unavailable):
                raise
            return EndedJob(f"it cannot be started: {error.message}", path)

    async def find(self, spec: JobSpec, reference: Mapping[str, Any]) -> Job | None:
        """Gives the job of a run that was made before, running or ended; its end says whether it is there still."""
        from mlmesh_katib.jobs.pipeline_job import PipelineJob

        if not reference.get("run_id"):
            return None
        return PipelineJob(self._client, reference["run_id"], reference.get("outputs", ()), self._log_path(spec))

    async def _start(self, spec: JobSpec, path: Path) -> Job:
        from mlmesh_katib.jobs.pipeline_job import PipelineJob

        wanted: Mapping[str, Any] = spec.manifest["spec"]
        config: Mapping[str, Any] = wanted.get("runtimeConfig", {})
        # By this it is found again: the name alone is that of an experiment's that was deleted, too.
        description = f"Trial of Katib experiment {spec.namespace}/{spec.experiment} ({spec.experiment_id})"
        run: dict[str, Any] = {"display_name": spec.trial, "description": description}
        if wanted.get("pipelineSpec"):
            content = wanted["pipelineSpec"]
            run["pipeline_spec"] = content
        else:
            pipeline_id, version_id, content = await self._client.version(spec.namespace, wanted)
            run["pipeline_version_reference"] = {"pipeline_id": pipeline_id, "pipeline_version_id": version_id}
        outputs = definitions_of(content, "outputDefinitions")
        experiment_id = await self._client.experiment(spec.namespace, spec.experiment)
        run_id = await self._client.find_run(experiment_id, spec.trial, description)
        if not run_id:
            parameters = typed(config.get("parameters", {}), definitions_of(content, "inputDefinitions"))
            run["experiment_id"] = experiment_id
            run["runtime_config"] = {"parameters": parameters, "pipeline_root": config.get("pipelineRoot", "")}
            run["service_account"] = wanted.get("serviceAccount", "")
            run_id = await self._client.create_run(run)
        return PipelineJob(self._client, run_id, outputs, path)

    def _log_path(self, spec: JobSpec) -> Path:
        folder = self._root / str(spec.experiment_id) / spec.trial
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "log"

    @property
    def _client(self) -> "PipelineClient":
        if self._opened is None:
            from mlmesh_katib.jobs.pipeline_client import PipelineClient

            self._opened = PipelineClient(self._address, self._user)
        return self._opened


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgument("must be an object", field=field)
    return value


def _known(value: Mapping[str, Any], fields: set[str], where: str) -> None:
    for key in value:
        if key not in fields:
            raise InvalidArgument(f"is not known; known are {', '.join(sorted(fields))}", field=f"{where}.{key}")
