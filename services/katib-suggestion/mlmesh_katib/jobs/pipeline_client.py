"""What trials ask of the pipeline service, by gRPC; its errors are those of the kit."""

import json
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import json_format
from mlmesh_kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
    Unavailable,
)
from mlmesh_kit.identity import USER_HEADER
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import (
    experiment_pb2,
    experiment_pb2_grpc,
    pipeline_pb2,
    pipeline_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
)
from mlmesh_protos.mlmesh.pipeline.v1 import run_analysis_pb2, run_analysis_pb2_grpc

_CALL_SECONDS = 15.0
_MAX_BYTES = 64 << 20
_OPTIONS = [
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", _MAX_BYTES),
]


class PipelineClient:
    """Runs of pipelines.

    Every method raises Unavailable where the service cannot be reached or cannot answer, and what it says otherwise.

    Args:
        address: Of the pipeline service.
        user: On whose behalf; the pipeline service asks whether they may.
    """

    def __init__(self, address: str, user: str) -> None:
        self._metadata = ((USER_HEADER, user),)
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._runs: Any = run_pb2_grpc.RunServiceStub(self._channel)
        self._experiments: Any = experiment_pb2_grpc.ExperimentServiceStub(self._channel)
        self._pipelines: Any = pipeline_pb2_grpc.PipelineServiceStub(self._channel)
        self._analysis: Any = run_analysis_pb2_grpc.RunAnalysisServiceStub(self._channel)

    async def experiment(self, namespace: str, name: str) -> str:
        """Gives the id of the KFP experiment of this name, and makes it if there is none."""
        for _ in range(2):
            asked = experiment_pb2.Experiment(namespace=namespace, display_name=name)
            try:
                made = await self._call(
                    self._experiments.CreateExperiment, experiment_pb2.CreateExperimentRequest(experiment=asked)
                )
                return str(made.experiment_id)
            except AlreadyExists:
                request = experiment_pb2.ListExperimentsRequest(namespace=namespace, filter=_named(name))
                found = (await self._call(self._experiments.ListExperiments, request)).experiments
                if found:
                    return str(found[0].experiment_id)
        raise Unavailable(f"experiment {name!r} of the pipeline service comes and goes")

    async def version(self, namespace: str, source: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
        """Gives pipeline id, version id and IR of a pipeline that is named.

        Args:
            namespace: Where names mean something.
            source: `pipelineId` or `pipelineName`, perhaps `pipelineVersionId` or `pipelineVersion`.

        Raises:
            NotFound: There is none.
        """
        pipeline_id = source.get("pipelineId", "")
        if not pipeline_id:
            request = pipeline_pb2.GetPipelineByNameRequest(namespace=namespace, name=source["pipelineName"])
            pipeline_id = (await self._call(self._pipelines.GetPipelineByName, request)).pipeline_id
        if version_id := source.get("pipelineVersionId", ""):
            found = await self._call(
                self._pipelines.GetPipelineVersion,
                pipeline_pb2.GetPipelineVersionRequest(pipeline_id=pipeline_id, pipeline_version_id=version_id),
            )
        else:
            name = source.get("pipelineVersion", "")
            listing = pipeline_pb2.ListPipelineVersionsRequest(
                pipeline_id=pipeline_id, page_size=1, sort_by="created_at desc", filter=_named(name) if name else ""
            )
            versions = (await self._call(self._pipelines.ListPipelineVersions, listing)).pipeline_versions
            if not versions:
                raise NotFound("pipeline version", name or "(any)")
            found = versions[0]
        return pipeline_id, found.pipeline_version_id, json_format.MessageToDict(found.pipeline_spec)

    async def find_run(self, experiment_id: str, name: str, description: str) -> str:
        """Gives the id of the run of this name and description; "" if there is none."""
        token = ""
        while True:
            request = run_pb2.ListRunsRequest(
                experiment_id=experiment_id, filter=_named(name), page_size=100, page_token=token
            )
            page = await self._call(self._runs.ListRuns, request)
            for run in page.runs:
                if run.description == description:
                    return str(run.run_id)
            token = page.next_page_token
            if not token:
                return ""

    async def create_run(self, run: Mapping[str, Any]) -> str:
        """Makes a run, given as JSON; gives its id."""
        message = json_format.ParseDict(dict(run), run_pb2.Run())
        made = await self._call(self._runs.CreateRun, run_pb2.CreateRunRequest(run=message))
        return str(made.run_id)

    async def run(self, run_id: str) -> Any:
        """Gives a run, with its tasks."""
        return await self._call(self._runs.GetRun, run_pb2.GetRunRequest(run_id=run_id))

    async def terminate(self, run_id: str) -> None:
        """Ends a run."""
        await self._call(self._runs.TerminateRun, run_pb2.TerminateRunRequest(run_id=run_id))

    async def outputs(self, run_id: str) -> dict[str, Any]:
        """Gives what a run has given so far: `RunOutputs` as JSON."""
        request = run_analysis_pb2.GetOutputsRequest(name=f"runs/{run_id}")
        found = await self._call(self._analysis.GetOutputs, request)
        outputs: dict[str, Any] = json_format.MessageToDict(found, preserving_proto_field_name=True)
        return outputs

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _service_error(error) from error


def _named(name: str) -> str:
    predicate = {"key": "display_name", "operation": "EQUALS", "string_value": name}
    return json.dumps({"predicates": [predicate]})


def _service_error(error: grpc.aio.AioRpcError) -> ServiceError:
    words = f"pipeline service: {error.details() or error.code().name}"
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return NotFound(message=words)
    if error.code() is grpc.StatusCode.ALREADY_EXISTS:
        return AlreadyExists(message=words)
    if error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE}:
        return InvalidArgument(words)
    if error.code() in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED}:
        return FailedPrecondition(words)
    if error.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}:
        return PermissionDenied(words)
    return Unavailable(words, retry_after_seconds=1)
