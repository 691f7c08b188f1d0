"""Objects as files under one folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_kit.objectstore.base import ObjectInfo, ObjectStore


class FileStore(ObjectStore):
    """Files below `root`; a URI or a symbolic link that leads elsewhere is refused.

    Args:
        root: The folder; made on the first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def path(self, uri: str) -> Path:
        """Gives the path that a URI means.

        Raises:
            InvalidArgument: It is no file URI, or leads out of the root.
        """
        parts = urlsplit(uri)
        if parts.scheme != "file" or parts.netloc or "\0" in uri:
            raise InvalidArgument("must be a URI file:///...", field="uri")
        path = Path(unquote(parts.path))
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise InvalidArgument("leads out of the store's folder", field="uri")
        return path

    def put_file(self, path: Path, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        with path.open("rb") as source:
            return self._put(source, uri)

    def put_bytes(self, data: bytes, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        import io

        return self._put(io.BytesIO(data), uri)

    def _put(self, source: BinaryIO, uri: str) -> ObjectInfo:
        target = self.path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        try:
            with os.fdopen(descriptor, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
                sink.flush()
                os.fsync(sink.fileno())
            os.replace(scratch, target)
        except BaseException:
            os.unlink(scratch)
            raise
        return self.stat(uri)

    def get_file(self, uri: str, path: Path) -> None:
        """See ObjectStore."""
        with self.open_read(uri) as source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)

    def open_read(self, uri: str, offset: int = 0) -> BinaryIO:
        """See ObjectStore."""
        try:
            stream = self.path(uri).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound("object", uri) from error
        stream.seek(offset)
        return stream

    def stat(self, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        path = self.path(uri)
        if not path.is_file():
            raise NotFound("object", uri)
        found = path.stat()
        return ObjectInfo(uri, found.st_size, found.st_mtime)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        folder = self.path(prefix)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and not path.name.startswith(".part-"):
                found = path.stat()
                relative = quote(path.relative_to(folder).as_posix())
                yield ObjectInfo(f"{prefix.rstrip('/')}/{relative}", found.st_size, found.st_mtime)

    def delete(self, uri: str) -> None:
        """See ObjectStore."""
        self.path(uri).unlink(missing_ok=True)
