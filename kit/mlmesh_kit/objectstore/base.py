"""The interface of an object store. It blocks: call it from a thread."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it.

    Attributes:
        uri: Where it is.
        size: Bytes.
        modified: Seconds since the epoch.
    """

    uri: str
    size: int
    modified: float


class ObjectStore(ABC):
    """Objects by URI.

    Every method raises InvalidArgument for a URI that is not this store's, NotFound where there is no object, and
    Unavailable where the store cannot be reached.
    """

    @abstractmethod
    def put_file(self, path: Path, uri: str) -> ObjectInfo:
        """Stores a file; whoever reads sees the old content or the new, never half."""

    @abstractmethod
    def put_bytes(self, data: bytes, uri: str) -> ObjectInfo:
        """Stores bytes."""

    @abstractmethod
    def get_file(self, uri: str, path: Path) -> None:
        """Copies an object into a file."""

    @abstractmethod
    def open_read(self, uri: str, offset: int = 0) -> BinaryIO:
        """Opens an object for reading from a byte on; the caller closes it."""

    @abstractmethod
    def stat(self, uri: str) -> ObjectInfo:
        """Tells an object's size and age."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Lists the objects below a URI, as if it were a folder, to any depth."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Removes an object; none there is fine."""

    def exists(self, uri: str) -> bool:
        """Tells whether there is an object."""
        from mlmesh_kit.errors import NotFound

        try:
            self.stat(uri)
        except NotFound:
            return False
        return True

    def get_bytes(self, uri: str, max_bytes: int = 64 << 20) -> bytes:
        """Reads an object whole.

        Raises:
            InvalidArgument: It is larger than `max_bytes`.
        """
        from mlmesh_kit.errors import InvalidArgument

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
                self.put_file(path, f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}")
                count += 1
        return count

    def get_tree(self, uri: str, folder: Path) -> int:
        """Copies what lies below a URI into a folder; gives how many files.

        Raises:
            InvalidArgument: An object's name leads out of the folder.
        """
        from mlmesh_kit.errors import InvalidArgument

        prefix = uri.rstrip("/") + "/"
        count = 0
        for info in self.list(uri):
            relative = info.uri.removeprefix(prefix)
            target = folder / relative
            if not target.resolve().is_relative_to(folder.resolve()):
                raise InvalidArgument("an object's name leads out of the folder", field="uri")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.get_file(info.uri, target)
            count += 1
        return count
