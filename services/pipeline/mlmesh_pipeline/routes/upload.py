"""`POST /apis/v2beta1/pipelines/upload` and `/upload_version`: multipart, field `uploadfile`."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from mlmesh_kit.access import IN_DOMAIN, Access
from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.http import route
from mlmesh_kit.identity import current_caller
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlmesh_pipeline.access import namespace_parameter, require_visible
from mlmesh_pipeline.pipelines import Naming, Pipelines, read_package
from mlmesh_pipeline.servicers.convert import pipeline_message, tags_of, version_message
from mlmesh_pipeline.store import PipelineStore


class UploadRoutes:
    """Takes pipeline packages.

    Args:
        pipelines: Creates pipelines and versions.
        store: Where they are.
        max_bytes: Largest package, also when unpacked.
    """

    def __init__(self, pipelines: Pipelines, store: PipelineStore, max_bytes: int) -> None:
        self._pipelines = pipelines
        self._store = store
        self._max_bytes = max_bytes

    def routes(self) -> Sequence[Route]:
        """Gives the routes."""
        create = Access("create", "pipelines", namespace=namespace_parameter)
        add = Access("create", "pipelines", namespace=IN_DOMAIN)
        return [
            route("/apis/v2beta1/pipelines/upload", self.upload, access=create, methods=["POST"]),
            route("/apis/v2beta1/pipelines/upload_version", self.upload_version, access=add, methods=["POST"]),
        ]

    async def upload(self, request: Request) -> Response:
        """Creates a pipeline with its first version."""
        query = request.query_params
        namespace = query.get("namespace") or current_caller().default_namespace
        name, data = await self._file(request)

        def create() -> Any:
            spec = read_package(name, data, self._max_bytes)
            return pipeline_message(self._pipelines.create(namespace, _naming(query), spec))

        return _json(await asyncio.to_thread(create))

    async def upload_version(self, request: Request) -> Response:
        """Adds a version to the pipeline that `pipelineid` names."""
        query = request.query_params
        pipeline_id = query.get("pipelineid", "")
        if not pipeline_id:
            raise InvalidArgument("is required", field="pipelineid")
        name, data = await self._file(request)

        def create() -> Any:
            pipeline = self._store.get(pipeline_id)
            require_visible("create", "pipelines", pipeline.namespace, "pipeline", pipeline_id)
            spec = read_package(name, data, self._max_bytes)
            return version_message(self._pipelines.create_version(pipeline_id, _naming(query), spec))

        return _json(await asyncio.to_thread(create))

    async def _file(self, request: Request) -> tuple[str, bytes]:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise InvalidArgument("the body must be multipart/form-data with a file", field="uploadfile")
        try:
            async with contextlib.aclosing(_Form(await request.form(max_files=1, max_fields=10))) as form:
                file = form.content.get("uploadfile")
                if not isinstance(file, UploadFile):
                    raise InvalidArgument("a file is required", field="uploadfile")
                if (file.size or 0) > self._max_bytes:
                    raise InvalidArgument(f"is larger than {self._max_bytes} bytes", field="uploadfile")
                return file.filename or "", await file.read()
        except HTTPException as error:
            if error.status_code == 413:
                raise
            raise InvalidArgument(f"cannot be read: {error.detail}", field="uploadfile") from error


class _Form:
    def __init__(self, content: Any) -> None:
        self.content = content

    async def __aenter__(self) -> "_Form":
        return self

    async def aclose(self) -> None:
        await self.content.close()


def _naming(query: Any) -> Naming:
    return Naming(
        query.get("name", ""),
        query.get("display_name", ""),
        query.get("description", ""),
        tags_of(query.get("tags", "")),
    )


def _json(message: Any) -> JSONResponse:
    return JSONResponse(json_format.MessageToDict(message, preserving_proto_field_name=True))
