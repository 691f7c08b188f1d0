"""Artifacts as they are read by people and programs: bytes, files of folders, links."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from mlmesh_kit.objectstore import ObjectInfo, ObjectStore, below, relative_name

from mlmesh_pipeline.artifact_stores import ArtifactStores, is_remote
from mlmesh_pipeline.engine.paths import file_path
from mlmesh_pipeline.engine.trees import is_inside, walk
from mlmesh_pipeline.resources import NO_CONTENT, Artifact

_MOST_LISTED = 10_000


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that can be read.

    Attributes:
        filename: What to save them as.
        size: How many.
        etag: Changes when they do.
        uri: Where they are.
        path: Where they are on this machine; None: in an object store.
        open: Opens them: from a byte on, so many.
    """

    filename: str
    size: int
    etag: str
    uri: str
    path: Path | None
    open: Callable[[int, int], BinaryIO]


class ArtifactReader:
    """Reads artifacts wherever they are. Its methods block.

    Args:
        stores: The object stores.
        link_seconds: How long a link is good.
        folders: Where on this machine it may read; None: everywhere.
    """

    def __init__(self, stores: ArtifactStores, link_seconds: int, folders: Sequence[Path] | None = None) -> None:
        self._stores = stores
        self.link_seconds = link_seconds
        self._folders = folders

    def content(self, artifact: Artifact, member: str = "") -> Content:
        """Finds the bytes of an artifact that is a file, or of a file (`member`) of one that is a folder.

        Raises:
            InvalidArgument: `member` is no name of a file in a folder.
            NotFound: There is nothing.
            FailedPrecondition: It is a folder; it has changed since; or it is where the service cannot read.
            Unavailable: The object store cannot be reached.
        """
        if member and not is_inside(member):
            raise InvalidArgument("must be the name of a file in the folder", field="path")
        if is_remote(artifact.uri):
            return self._remote(artifact, member)
        return _local(self._here(artifact), artifact, member)

    def listing(self, artifact: Artifact) -> dict[str, Any]:
        """Lists the files of an artifact: `{"uri", "folder", "files": [{"path", "size"}], "truncated"}`.

        The only file of one that is no folder has the path "".

        Raises:
            NotFound: There is nothing.
            FailedPrecondition: It is where the service cannot read.
            Unavailable: The object store cannot be reached.
        """
        files = self._remote_files(artifact) if is_remote(artifact.uri) else _local_files(self._here(artifact))
        return {
            "uri": artifact.uri,
            "folder": files is not None,
            "files": [{"path": "", "size": self.content(artifact).size}]
            if files is None
            else [{"path": path, "size": size} for path, size in files[:_MOST_LISTED]],
            "truncated": files is not None and len(files) > _MOST_LISTED,
        }

    def link(self, artifact: Artifact, member: str = "") -> str:
        """Gives a link by which anybody who has it can read what `content` finds, for `link_seconds`.

        Raises:
            FailedPrecondition: The store has no links; or as `content`.
        """
        if not is_remote(artifact.uri):
            raise FailedPrecondition(
                f"artifact {artifact.name!r} is in a store that gives no links; read it without download=link"
            )
        found = self._remote(artifact, member)
        return self._stores.of(found.uri).presigned_url(found.uri, self.link_seconds, found.filename)

    def _here(self, artifact: Artifact) -> Path:
        """Gives the path of an artifact on this machine.

        Raises:
            FailedPrecondition: There is nothing that may be read.
        """
        path = file_path(artifact.uri)
        if path is not None and path.exists():
            whole = path.resolve()
            if self._folders is None or any(whole.is_relative_to(folder.resolve()) for folder in self._folders):
                return path
        raise FailedPrecondition(f"artifact {artifact.name!r} ({artifact.uri}) is not on this machine")

    def _remote(self, artifact: Artifact, member: str) -> Content:
        store = self._stores.of(artifact.uri)
        if artifact.etag == NO_CONTENT:
            raise NotFound(message=f"the task wrote nothing to artifact {artifact.name!r}")
        uri = below(artifact.uri, member) if member else artifact.uri
        info = _stat(store, uri, artifact, member)
        if not member and artifact.digest and artifact.etag and info.etag != artifact.etag:
            raise FailedPrecondition(f"artifact {artifact.name!r} has changed in the store since it was recorded")
        tag = artifact.digest if artifact.digest and not member else info.etag
        filename = unquote(uri.rsplit("/", 1)[-1])
        return Content(filename, info.size, tag, uri, None, lambda offset, length: store.open_read(uri, offset, length))

    def _remote_files(self, artifact: Artifact) -> list[tuple[str, int]] | None:
        store, uri = self._stores.of(artifact.uri), artifact.uri
        if artifact.etag != NO_CONTENT and store.exists(uri):
            return None
        listed = islice(store.list(uri), _MOST_LISTED + 1)
        return [(relative_name(info.uri, uri), info.size) for info in listed]


def _stat(store: ObjectStore, uri: str, artifact: Artifact, member: str) -> ObjectInfo:
    try:
        return store.stat(uri)
    except NotFound:
        if member or next(iter(store.list(uri)), None) is None:
            raise
    raise FailedPrecondition(_is_folder(artifact))


def _local(root: Path, artifact: Artifact, member: str) -> Content:
    path = root / member if member else root
    if member and not path.resolve().is_relative_to(root.resolve()):
        raise NotFound("file", member)
    if path.is_dir() and not member:
        raise FailedPrecondition(_is_folder(artifact))
    if not path.is_file():
        raise NotFound("file", member or artifact.name)
    about = path.stat()

    def open_part(offset: int, length: int) -> BinaryIO:
        stream = path.open("rb")
        stream.seek(offset)
        return stream

    tag = f"{about.st_mtime_ns:x}-{about.st_size:x}"
    return Content(path.name, about.st_size, tag, artifact.uri, path, open_part)


def _local_files(root: Path) -> list[tuple[str, int]] | None:
    if not root.is_dir():
        return None
    return [(name, path.stat().st_size) for path, name in islice(walk(root), _MOST_LISTED + 1)]


def _is_folder(artifact: Artifact) -> str:
    return f"artifact {artifact.name!r} is a folder: ?list=true names its files, ?path=NAME gives one"
