"""The interface of an object store. It blocks: call it from a thread."""

import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound

Seen = Callable[[bytes], None]
"""Is given every byte of a transfer, in order, as it passes; what it raises ends the transfer."""

PART_PREFIX = ".part-"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it.

    Attributes:
        uri: Where it is.
        size: Bytes.
        modified: Seconds since the epoch.
        etag: Changes when the content does.
    """

    uri: str
    size: int
    modified: float
    etag: str = ""


class ObjectStore(ABC):
    """Objects by URI.

    Every method raises InvalidArgument for a URI that is not this store's, NotFound where there is no object (or no
    bucket), PermissionDenied where the keys do not reach it, FailedPrecondition where the store will not have it, and
    Unavailable where the store cannot be reached: only that is worth trying again.
    """

    @abstractmethod
    def put_file(self, path: Path, uri: str, seen: Seen | None = None) -> ObjectInfo:
        """Stores a file; whoever reads sees the old content or the new, never half."""

    @abstractmethod
    def put_bytes(self, data: bytes, uri: str) -> ObjectInfo:
        """Stores bytes."""

    @abstractmethod
    def open_read(self, uri: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        """Opens an object for reading `length` bytes (None: all) from a byte on; the caller closes it."""

    @abstractmethod
    def stat(self, uri: str) -> ObjectInfo:
        """Tells an object's size and age."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Lists the objects below a URI, as if it were a folder, to any depth; their URIs begin with `prefix`."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Removes an object; none there is fine."""

    @abstractmethod
    def abort_uploads(self, prefix: str) -> int:
        """Drops what uploads below a URI left that were begun and never ended; gives how many.

        Only for places where nobody is writing: it would end an upload that is on its way.
        """

    def presigned_url(self, uri: str, seconds: int, filename: str = "") -> str:
        """Gives a link by which whoever has it can read the object for some time.

        Args:
            uri: The object; it is not looked whether there is one.
            seconds: How long the link is good, from 1 to 604800.
            filename: What browsers are to save it as.

        Raises:
            FailedPrecondition: The store has no links.
        """
        raise FailedPrecondition(f"{uri} is in a store that gives no links")

    def exists(self, uri: str) -> bool:
        """Tells whether there is an object."""
        try:
            self.stat(uri)
        except NotFound:
            return False
        return True

    def get_file(self, uri: str, path: Path, seen: Seen | None = None) -> None:
        """Copies an object into a file, which is there whole or not at all."""
        with self.open_read(uri) as source, replacing(path) as sink:
            copy(source, sink, seen)

    def get_bytes(self, uri: str, max_bytes: int = 64 << 20) -> bytes:
        """Reads an object whole.

        Raises:
            InvalidArgument: It is larger than `max_bytes`.
        """
        with self.open_read(uri) as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise InvalidArgument(f"is larger than the {max_bytes} bytes allowed", field="uri")
        return data

    def put_tree(self, folder: Path, uri: str) -> int:
        """Stores the files of a folder below a URI; gives how many. Symbolic links are left out."""
        count = 0
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                self.put_file(path, below(uri, path.relative_to(folder).as_posix()))
                count += 1
        return count

    def get_tree(self, uri: str, folder: Path) -> int:
        """Copies what lies below a URI into a folder; gives how many files.

        Raises:
            InvalidArgument: An object's name leads out of the folder.
        """
        count = 0
        for info in self.list(uri):
            target = folder / relative_name(info.uri, uri)
            if not target.resolve().is_relative_to(folder.resolve()):
                raise InvalidArgument("an object's name leads out of the folder", field="uri")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.get_file(info.uri, target)
            count += 1
        return count

    def delete_tree(self, uri: str) -> int:
        """Removes the objects below a URI; gives how many."""
        count = 0
        for info in self.list(uri):
            self.delete(info.uri)
            count += 1
        return count


def below(uri: str, name: str) -> str:
    """Gives the URI of what has a name (with `/`, unquoted) below a URI."""
    return f"{uri.rstrip('/')}/{quote(name)}"


def relative_name(uri: str, prefix: str) -> str:
    """Gives the name, unquoted, that a listed URI has below the prefix that was listed."""
    return unquote(uri.removeprefix(prefix.rstrip("/") + "/"))


def copy(source: BinaryIO, sink: BinaryIO, seen: Seen | None = None) -> None:
    """Copies a stream to its end."""
    while chunk := source.read(_CHUNK):
        if seen is not None:
            seen(chunk)
        sink.write(chunk)


@contextlib.contextmanager
def replacing(target: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `target` when it has been written without an exception.

    Args:
        target: In a folder that there is.
        durable: Whether it is on the disk before it takes its place.
    """
    descriptor, scratch = tempfile.mkstemp(dir=target.parent, prefix=PART_PREFIX)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            yield sink
            if durable:
                sink.flush()
                os.fsync(sink.fileno())
        os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise
