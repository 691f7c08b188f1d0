"""Objects as files under one folder."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from mlmesh_kit.errors import InvalidArgument, NotFound
from mlmesh_kit.objectstore.base import PART_PREFIX, ObjectInfo, ObjectStore, Seen, below, copy, replacing


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

    def put_file(self, path: Path, uri: str, seen: Seen | None = None) -> ObjectInfo:
        """See ObjectStore."""
        with path.open("rb") as source:
            return self._put(source, uri, seen)

    def put_bytes(self, data: bytes, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        return self._put(io.BytesIO(data), uri, None)

    def _put(self, source: BinaryIO, uri: str, seen: Seen | None) -> ObjectInfo:
        target = self.path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, durable=True) as sink:
            copy(source, sink, seen)
        return self.stat(uri)

    def open_read(self, uri: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        """See ObjectStore."""
        try:
            stream = self.path(uri).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound("object", uri) from error
        stream.seek(offset)
        return stream if length is None else io.BufferedReader(_Part(stream, length))

    def stat(self, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        path = self.path(uri)
        if not path.is_file():
            raise NotFound("object", uri)
        return _info(path, uri)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        folder = self.path(prefix)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink() and not path.name.startswith(PART_PREFIX):
                yield _info(path, below(prefix, path.relative_to(folder).as_posix()))

    def delete(self, uri: str) -> None:
        """See ObjectStore."""
        self.path(uri).unlink(missing_ok=True)

    def abort_uploads(self, prefix: str) -> int:
        """See ObjectStore."""
        left = [path for path in self.path(prefix).rglob(f"{PART_PREFIX}*") if path.is_file()]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


class _Part(io.RawIOBase):
    """The next bytes of a stream."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream = stream
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _info(path: Path, uri: str) -> ObjectInfo:
    found = path.stat()
    return ObjectInfo(uri, found.st_size, found.st_mtime, f"{found.st_mtime_ns:x}-{found.st_size:x}")
