"""Pipelines and their versions in the database."""

from dataclasses import replace
from typing import Any

from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from sqlalchemy import Connection, Engine, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from mlmesh_pipeline.listing import ListQuery, Page
from mlmesh_pipeline.resources import Pipeline, PipelineVersion
from mlmesh_pipeline.store.codec import dump, load
from mlmesh_pipeline.store.listing import list_page
from mlmesh_pipeline.store.specs import get_spec, get_specs, put_spec, sizes_of
from mlmesh_pipeline.tables import pipeline_versions, pipelines

_FIELDS = {
    "id": pipelines.c.pipeline_id,
    "pipeline_id": pipelines.c.pipeline_id,
    "name": pipelines.c.name,
    "display_name": pipelines.c.display_name,
    "description": pipelines.c.description,
    "created_at": pipelines.c.created_at,
    "namespace": pipelines.c.namespace,
}
_VERSION_FIELDS = {
    "id": pipeline_versions.c.version_id,
    "pipeline_version_id": pipeline_versions.c.version_id,
    "name": pipeline_versions.c.name,
    "display_name": pipeline_versions.c.display_name,
    "description": pipeline_versions.c.description,
    "created_at": pipeline_versions.c.created_at,
    "code_source_url": pipeline_versions.c.code_source_url,
}


class PipelineStore:
    """Pipelines and their versions.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, pipeline: Pipeline, version: PipelineVersion | None = None) -> Pipeline:
        """Adds a pipeline, perhaps with its first version, in one transaction.

        Raises:
            AlreadyExists: The namespace has one of this name.
        """

        def write(connection: Connection) -> None:
            connection.execute(
                insert(pipelines).values(
                    pipeline_id=pipeline.pipeline_id,
                    namespace=pipeline.namespace,
                    name=pipeline.name,
                    display_name=pipeline.display_name,
                    description=pipeline.description,
                    created_at=pipeline.created_at,
                    tags=dump(pipeline.tags),
                )
            )
            if version is not None:
                _insert_version(connection, version)

        try:
            run_transaction(self._engine, write)
        except IntegrityError as error:
            raise AlreadyExists("pipeline", pipeline.name) from error
        return pipeline

    def get(self, pipeline_id: str) -> Pipeline:
        """Gives a pipeline.

        Raises:
            NotFound: There is none of this id.
        """
        with read(self._engine) as connection:
            row = connection.execute(select(pipelines).where(pipelines.c.pipeline_id == pipeline_id)).first()
        if row is None:
            raise NotFound("pipeline", pipeline_id)
        return _pipeline(row)

    def find(self, namespace: str, name: str) -> Pipeline:
        """Gives the pipeline of this name.

        Raises:
            NotFound: The namespace has none.
        """
        with read(self._engine) as connection:
            row = connection.execute(
                select(pipelines).where(pipelines.c.namespace == namespace, pipelines.c.name == name)
            ).first()
        if row is None:
            raise NotFound("pipeline", name)
        return _pipeline(row)

    def page(self, namespace: str, query: ListQuery) -> Page[Pipeline]:
        """Lists the pipelines of a namespace."""
        with read(self._engine) as connection:
            return list_page(
                connection,
                pipelines,
                _FIELDS,
                key=pipelines.c.pipeline_id,
                where={pipelines.c.namespace: namespace},
                query=query,
                make=_pipeline,
                tags=pipelines.c.tags,
            )

    def update(self, pipeline_id: str, changes: dict[str, Any]) -> Pipeline:
        """Changes display_name, description or tags."""
        values = {**changes, **({"tags": dump(changes["tags"])} if "tags" in changes else {})}
        if values:
            run_transaction(
                self._engine,
                lambda connection: connection.execute(
                    update(pipelines).where(pipelines.c.pipeline_id == pipeline_id).values(**values)
                ),
            )
        return self.get(pipeline_id)

    def delete(self, pipeline_id: str, *, cascade: bool) -> None:
        """Deletes a pipeline, with its versions where `cascade` says so.

        Raises:
            FailedPrecondition: It has versions, and they are to stay.
        """

        def write(connection: Connection) -> None:
            mine = pipeline_versions.c.pipeline_id == pipeline_id
            if cascade:
                connection.execute(delete(pipeline_versions).where(mine))
            elif connection.execute(select(pipeline_versions.c.version_id).where(mine).limit(1)).first():
                raise FailedPrecondition(f"pipeline {pipeline_id!r} has versions: delete them first, or set cascade")
            connection.execute(delete(pipelines).where(pipelines.c.pipeline_id == pipeline_id))

        run_transaction(self._engine, write)

    def create_version(self, version: PipelineVersion) -> PipelineVersion:
        """Adds a version.

        Raises:
            AlreadyExists: The pipeline has one of this name.
        """
        try:
            run_transaction(self._engine, lambda connection: _insert_version(connection, version))
        except IntegrityError as error:
            raise AlreadyExists("pipeline version", version.name) from error
        return version

    def get_version(self, pipeline_id: str, version_id: str) -> PipelineVersion:
        """Gives a version; without a version id the latest, without a pipeline id any pipeline's.

        Raises:
            NotFound: There is none.
        """
        query = select(pipeline_versions)
        if pipeline_id:
            query = query.where(pipeline_versions.c.pipeline_id == pipeline_id)
        if version_id:
            query = query.where(pipeline_versions.c.version_id == version_id)
        query = query.order_by(pipeline_versions.c.created_at.desc(), pipeline_versions.c.version_id.desc())
        with read(self._engine) as connection:
            row = connection.execute(query.limit(1)).first()
            if row is None:
                raise NotFound("pipeline version", version_id or f"latest of {pipeline_id}")
            return _version(row, get_spec(connection, row.spec_digest))

    def page_of_versions(self, pipeline_id: str, query: ListQuery) -> Page[PipelineVersion]:
        """Lists the versions of a pipeline."""
        with read(self._engine) as connection:
            digests: dict[str, str] = {}

            def make(row: Row[Any]) -> PipelineVersion:
                digests[row.version_id] = row.spec_digest
                return _version(row, {})

            page = list_page(
                connection,
                pipeline_versions,
                _VERSION_FIELDS,
                key=pipeline_versions.c.version_id,
                where={pipeline_versions.c.pipeline_id: pipeline_id},
                query=query,
                make=make,
                tags=pipeline_versions.c.tags,
                weigh=lambda rows: sizes_of(connection, [row.spec_digest for row in rows]),
            )
            contents = get_specs(connection, set(digests.values()))
        items = [replace(version, spec=contents[digests[version.version_id]]) for version in page.items]
        return Page(items, page.total_size, page.next_page_token)

    def update_version(self, version_id: str, changes: dict[str, Any]) -> PipelineVersion:
        """Changes display_name, description or tags."""
        values = {**changes, **({"tags": dump(changes["tags"])} if "tags" in changes else {})}
        if values:
            run_transaction(
                self._engine,
                lambda connection: connection.execute(
                    update(pipeline_versions).where(pipeline_versions.c.version_id == version_id).values(**values)
                ),
            )
        return self.get_version("", version_id)

    def delete_version(self, version_id: str) -> None:
        """Deletes a version."""
        run_transaction(
            self._engine,
            lambda connection: connection.execute(
                delete(pipeline_versions).where(pipeline_versions.c.version_id == version_id)
            ),
        )


def _insert_version(connection: Connection, version: PipelineVersion) -> None:
    connection.execute(
        insert(pipeline_versions).values(
            version_id=version.version_id,
            pipeline_id=version.pipeline_id,
            name=version.name,
            display_name=version.display_name,
            description=version.description,
            created_at=version.created_at,
            spec_digest=put_spec(connection, version.spec),
            package_url=version.package_url,
            code_source_url=version.code_source_url,
            tags=dump(version.tags),
        )
    )


def _pipeline(row: Row[Any]) -> Pipeline:
    return Pipeline(
        row.pipeline_id, row.namespace, row.name, row.display_name, row.description, row.created_at, load(row.tags)
    )


def _version(row: Row[Any], spec: dict[str, Any]) -> PipelineVersion:
    return PipelineVersion(
        row.version_id,
        row.pipeline_id,
        row.name,
        row.display_name,
        spec,
        row.description,
        row.created_at,
        row.package_url,
        row.code_source_url,
        load(row.tags),
    )
