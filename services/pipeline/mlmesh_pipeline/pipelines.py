"""Pipelines and their versions: created from uploads, URLs or nothing."""

import io
import lzma
import struct
import tarfile
import uuid
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from mlmesh_kit.documents import load_yaml_all
from mlmesh_kit.errors import InvalidArgument

from mlmesh_pipeline.experiments import MAX_DESCRIPTION, check_namespace, check_text
from mlmesh_pipeline.ir.check import check
from mlmesh_pipeline.ir.document import join_documents, parse
from mlmesh_pipeline.resources import Pipeline, PipelineVersion, now
from mlmesh_pipeline.store import PipelineStore

_MAX_TAGS = 50
_MAX_URL = 2000
_MAX_ENTRIES = 1000
_FIELD = "uploadfile"
_BROKEN = (  # what zipfile, tarfile and what decompresses for them raise when they are given nonsense
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error,
    ValueError, LookupError, ArithmeticError, OSError, EOFError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Naming:
    """How a client wants something named; an empty name follows the display name, and the other way round."""

    name: str = ""
    display_name: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def checked(self, where: str, fallback: str = "") -> "Naming":
        """Fills in and checks.

        Raises:
            InvalidArgument: No name, one too long, too many tags.
        """
        name = self.name or self.display_name or fallback
        check_text(name, f"{where}.name")
        check_text(self.display_name, f"{where}.display_name", required=False)
        check_text(self.description, f"{where}.description", required=False, limit=MAX_DESCRIPTION)
        if len(self.tags) > _MAX_TAGS:
            raise InvalidArgument(f"must be at most {_MAX_TAGS}", field=f"{where}.tags")
        for key, value in self.tags.items():
            check_text(key, f"{where}.tags", limit=63)
            check_text(value, f"{where}.tags[{key!r}]", required=False, limit=255)
        return Naming(name, self.display_name or name, self.description, self.tags)


class Pipelines:
    """Creates pipelines and versions.

    Args:
        store: Where they are.
    """

    def __init__(self, store: PipelineStore) -> None:
        self._store = store

    def create(
        self,
        namespace: str,
        naming: Naming,
        spec: dict[str, Any] | None = None,
        *,
        version: Naming | None = None,
        package_url: str = "",
        code_url: str = "",
    ) -> Pipeline:
        """Creates a pipeline; with `spec`, with a first version.

        Args:
            namespace: Where.
            naming: Of the pipeline.
            spec: The pipeline's content.
            version: Naming of the first version; what it leaves out, and None, is as the pipeline's.
            package_url: Where the content was fetched from.
            code_url: Where the first version's source code is.

        Raises:
            InvalidArgument: A name or the pipeline is wrong.
            AlreadyExists: The name is taken.
        """
        fallback = _checked(spec) if spec is not None else ""
        if version is not None:
            fallback = version.name or version.display_name or fallback
        found = naming.checked("pipeline", fallback)
        check_namespace(namespace, "pipeline.namespace")
        check_text(code_url, "pipeline_version.code_source_url", required=False, limit=_MAX_URL)
        pipeline = Pipeline(
            str(uuid.uuid4()), namespace, found.name, found.display_name, found.description, now(), found.tags
        )
        first = None
        if spec is not None:
            own = found
            if version is not None:
                own = version.checked("pipeline_version", found.name)
                if not version.name and not version.display_name:
                    own = replace(own, display_name=found.display_name)
                own = replace(own, description=own.description or found.description)
            first = self._version(pipeline.pipeline_id, own, spec, package_url, code_url)
        return self._store.create(pipeline, first)

    def create_version(
        self, pipeline_id: str, naming: Naming, spec: dict[str, Any], *, package_url: str = "", code_url: str = ""
    ) -> PipelineVersion:
        """Adds a version to a pipeline.

        Raises:
            InvalidArgument: A name or the pipeline is wrong.
            AlreadyExists: The name is taken.
        """
        check_text(code_url, "pipeline_version.code_source_url", required=False, limit=_MAX_URL)
        fallback = _checked(spec)
        found = naming.checked("pipeline_version", fallback)
        return self._store.create_version(self._version(pipeline_id, found, spec, package_url, code_url))

    def _version(
        self, pipeline_id: str, naming: Naming, spec: dict[str, Any], package_url: str, code_url: str
    ) -> PipelineVersion:
        return PipelineVersion(
            version_id=str(uuid.uuid4()),
            pipeline_id=pipeline_id,
            name=naming.name,
            display_name=naming.display_name,
            spec=spec,
            description=naming.description,
            created_at=now(),
            package_url=package_url,
            code_source_url=code_url,
            tags=naming.tags,
        )


def _checked(spec: dict[str, Any]) -> str:
    document = parse(spec)
    check(document)
    return document.name


def read_package(name: str, data: bytes, max_bytes: int, field: str = _FIELD) -> dict[str, Any]:
    """Reads a pipeline package: YAML, or a zip or tar.gz with one YAML file in it.

    Args:
        name: File name, whose ending says what it is.
        data: The bytes.
        max_bytes: Largest YAML, also when unpacked.
        field: Where the client gave it; named in errors.

    Raises:
        InvalidArgument: It is none of these, or too large.
    """
    if len(data) > max_bytes:
        raise InvalidArgument(f"is larger than {max_bytes} bytes", field=field)
    lower = name.lower()
    if lower.endswith(".zip"):
        data = _from_zip(data, max_bytes, field)
    elif lower.endswith((".tar.gz", ".tgz")):
        data = _from_tar(data, max_bytes, field)
    elif not lower.endswith((".yaml", ".yml", ".json")):
        raise InvalidArgument("must end in .yaml, .yml, .json, .zip, .tar.gz or .tgz", field=field)
    return join_documents(load_yaml_all(data, field=field, max_bytes=max_bytes))


def _chosen(names: list[str], field: str) -> str:
    found = [name for name in names if name.endswith((".yaml", ".yml"))]
    if "pipeline.yaml" in found:
        return "pipeline.yaml"
    if len(found) != 1:
        raise InvalidArgument("must hold pipeline.yaml, or just one YAML file", field=field)
    return found[0]


def _from_zip(data: bytes, max_bytes: int, field: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if len(names) > _MAX_ENTRIES:
                raise InvalidArgument(f"has more than {_MAX_ENTRIES} entries", field=field)
            with archive.open(_chosen(names, field)) as file:
                return _bounded(file, max_bytes, field)
    except _BROKEN as error:
        raise InvalidArgument("is not a readable zip file", field=field) from error


def _from_tar(data: bytes, max_bytes: int, field: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            members = {}
            for member in archive:
                if member.isfile():
                    members[member.name] = member
                if len(members) > _MAX_ENTRIES or archive.offset > 10 * max_bytes:
                    raise InvalidArgument("has too many entries or is too large when unpacked", field=field)
            file = archive.extractfile(members[_chosen(list(members), field)])
            assert file is not None
            return _bounded(file, max_bytes, field)
    except _BROKEN as error:
        raise InvalidArgument("is not a readable tar.gz file", field=field) from error


def _bounded(file: Any, max_bytes: int, field: str) -> bytes:
    data: bytes = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InvalidArgument(f"is larger than {max_bytes} bytes when unpacked", field=field)
    return data
