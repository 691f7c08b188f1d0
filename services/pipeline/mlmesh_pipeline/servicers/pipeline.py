"""PipelineService."""

from typing import Any

from google.protobuf import empty_pb2
from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_kit.identity import current_caller
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import pipeline_pb2, pipeline_pb2_grpc

from mlmesh_pipeline.access import require_visible
from mlmesh_pipeline.fetch import FIELD, PackageFetcher
from mlmesh_pipeline.pipelines import Naming, Pipelines, read_package
from mlmesh_pipeline.resources import Pipeline
from mlmesh_pipeline.servicers.convert import content_of, list_query, naming_of, pipeline_message, version_message
from mlmesh_pipeline.store import PipelineStore


class PipelineServicer(pipeline_pb2_grpc.PipelineServiceServicer):
    """Serves pipelines and their versions.

    Args:
        pipelines: Creates them.
        store: Where they are.
        fetcher: Fetches packages.
        max_bytes: Largest package, also when unpacked.
    """

    def __init__(self, pipelines: Pipelines, store: PipelineStore, fetcher: PackageFetcher, max_bytes: int) -> None:
        self._pipelines = pipelines
        self._store = store
        self._fetcher = fetcher
        self._max_bytes = max_bytes

    def CreatePipeline(self, request: Any, context: Any) -> pipeline_pb2.Pipeline:
        namespace = request.pipeline.namespace or current_caller().default_namespace
        return pipeline_message(self._pipelines.create(namespace, naming_of(request.pipeline)))

    def GetPipeline(self, request: Any, context: Any) -> pipeline_pb2.Pipeline:
        return pipeline_message(self._visible("get", request.pipeline_id))

    def GetPipelineByName(self, request: Any, context: Any) -> pipeline_pb2.Pipeline:
        namespace = request.namespace or current_caller().default_namespace
        return pipeline_message(self._store.find(namespace, request.name))

    def ListPipelines(self, request: Any, context: Any) -> pipeline_pb2.ListPipelinesResponse:
        namespace = request.namespace or current_caller().default_namespace
        page = self._store.page(namespace, list_query(request))
        return pipeline_pb2.ListPipelinesResponse(
            pipelines=[pipeline_message(item) for item in page.items],
            total_size=page.total_size,
            next_page_token=page.next_page_token,
        )

    def DeletePipeline(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._visible("delete", request.pipeline_id)
        self._store.delete(request.pipeline_id, cascade=request.cascade)
        return empty_pb2.Empty()

    def UpdatePipeline(self, request: Any, context: Any) -> pipeline_pb2.Pipeline:
        found = self._visible("update", request.pipeline.pipeline_id)
        naming = naming_of(request.pipeline)
        naming.checked("pipeline", found.name)
        changes = _changes(naming, context)
        return pipeline_message(self._store.update(found.pipeline_id, changes))

    def CreatePipelineAndVersion(self, request: Any, context: Any) -> pipeline_pb2.Pipeline:
        namespace = request.pipeline.namespace or current_caller().default_namespace
        spec, url = self._spec_of(request.pipeline_version)
        made = self._pipelines.create(
            namespace,
            naming_of(request.pipeline),
            spec,
            version=naming_of(request.pipeline_version),
            package_url=url,
            code_url=request.pipeline_version.code_source_url,
        )
        return pipeline_message(made)

    def CreatePipelineVersion(self, request: Any, context: Any) -> pipeline_pb2.PipelineVersion:
        asked = request.pipeline_version
        found = self._visible("create", request.pipeline_id or asked.pipeline_id)
        spec, url = self._spec_of(asked)
        version = self._pipelines.create_version(
            found.pipeline_id, naming_of(asked), spec, package_url=url, code_url=asked.code_source_url
        )
        return version_message(version)

    def GetPipelineVersion(self, request: Any, context: Any) -> pipeline_pb2.PipelineVersion:
        self._visible("get", request.pipeline_id)
        return version_message(self._store.get_version(request.pipeline_id, _given(request.pipeline_version_id)))

    def ListPipelineVersions(self, request: Any, context: Any) -> pipeline_pb2.ListPipelineVersionsResponse:
        self._visible("list", request.pipeline_id)
        page = self._store.page_of_versions(request.pipeline_id, list_query(request))
        return pipeline_pb2.ListPipelineVersionsResponse(
            pipeline_versions=[version_message(item) for item in page.items],
            total_size=page.total_size,
            next_page_token=page.next_page_token,
        )

    def DeletePipelineVersion(self, request: Any, context: Any) -> empty_pb2.Empty:
        self._visible("delete", request.pipeline_id)
        found = self._store.get_version(request.pipeline_id, _given(request.pipeline_version_id))
        self._store.delete_version(found.version_id)
        return empty_pb2.Empty()

    def UpdatePipelineVersion(self, request: Any, context: Any) -> pipeline_pb2.PipelineVersion:
        asked = request.pipeline_version
        self._visible("update", asked.pipeline_id)
        found = self._store.get_version(asked.pipeline_id, _given(asked.pipeline_version_id))
        naming = naming_of(asked)
        naming.checked("pipeline_version", found.name)
        changes = _changes(naming, context)
        return version_message(self._store.update_version(found.version_id, changes))

    def _spec_of(self, version: Any) -> tuple[dict[str, Any], str]:
        """Gives the pipeline of a version, and the URL that it was fetched from, if it was."""
        if version.HasField("pipeline_spec"):
            return content_of(version.pipeline_spec, "pipeline_version.pipeline_spec"), ""
        if not version.HasField("package_url"):
            raise InvalidArgument("pipeline_spec or package_url is required", field="pipeline_version.pipeline_spec")
        package = self._fetcher.fetch(version.package_url.pipeline_url)
        return read_package(package.name, package.data, self._max_bytes, FIELD), package.url

    def _visible(self, verb: str, pipeline_id: str) -> Pipeline:
        if not pipeline_id:
            raise InvalidArgument("is required", field="pipeline_id")
        found = self._store.get(pipeline_id)
        require_visible(verb, "pipelines", found.namespace, "pipeline", pipeline_id)
        return found


def _given(version_id: str) -> str:
    if not version_id:
        raise NotFound("pipeline version", version_id)
    return version_id


def _changes(naming: Naming, context: Any) -> dict[str, Any]:
    """Gives what an update changes: what it holds. Messages do not tell no tags from none given; to take all away a
    client sends, as KFP's gateway does, the header `x-clear-tags: true`.
    """
    found: dict[str, Any] = {}
    if naming.display_name:
        found["display_name"] = naming.display_name
    if naming.description:
        found["description"] = naming.description
    if naming.tags or dict(context.invocation_metadata() or ()).get("x-clear-tags") == "true":
        found["tags"] = naming.tags
    return found
