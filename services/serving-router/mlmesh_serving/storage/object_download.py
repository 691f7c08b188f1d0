"""Models in an object store: one object, or all below a prefix. Archives in files of this machine pass here, too."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from mlmesh_kit.objectstore import ObjectInfo, ObjectStore, open_store, relative_name

from mlmesh_serving.storage.archive import too_large
from mlmesh_serving.storage.digest import digest_of_tree
from mlmesh_serving.storage.location import Location


@dataclass(frozen=True, slots=True)
class Objects:
    """What a URI names.

    Attributes:
        location: The URI.
        infos: The objects.
        is_file: Whether the URI is that of the one object, and not of a folder.
    """

    location: Location
    infos: Sequence[ObjectInfo]
    is_file: bool

    @property
    def tag(self) -> str:
        """Changes when one of the objects does."""
        lines = sorted(f"{info.uri} {info.size} {info.etag}" for info in self.infos)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_objects(location: Location, max_bytes: int, max_files: int) -> Objects:
    """Looks what there is.

    Raises:
        InvalidArgument: Nothing.
        FailedPrecondition: Too many, or too large.
        Unavailable: The store does not answer.
    """
    store = open_store(location.uri)
    found: list[ObjectInfo] = []
    is_file = False
    try:
        if location.scheme == "file" or "/" in location.place.rstrip("/"):
            found, is_file = [store.stat(location.uri)], True
    except NotFound:
        pass
    if not is_file and location.scheme != "file":
        found = _below(store, location, max_files)
    if not found:
        raise InvalidArgument("there is nothing at this URI", field=location.field)
    if sum(info.size for info in found) > max_bytes:
        raise too_large(max_bytes)
    return Objects(location, found, is_file)


def download_objects(objects: Objects, folder: Path, max_bytes: int) -> str:
    """Copies the objects into a folder; gives the hash of the content.

    Raises:
        InvalidArgument: The name of one leads out of the folder.
        FailedPrecondition: They are too large.
        NotFound, Unavailable: One has gone; the store does not answer.
    """
    location = objects.location
    store = open_store(location.uri)
    meter = _Meter(max_bytes)
    if objects.is_file:
        return meter.copy(store, location.uri, folder / location.name)
    digests: dict[str, str] = {}
    for info in objects.infos:
        name = relative_name(info.uri, location.uri)
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()) or not name.isprintable():
            raise InvalidArgument("the name of an object leads out of the folder", field=location.field)
        target.parent.mkdir(parents=True, exist_ok=True)
        digests[name] = meter.copy(store, info.uri, target)
    return digest_of_tree(digests)


class _Meter:
    """Counts what passes.

    Args:
        max_bytes: Of all objects.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._count = 0

    def copy(self, store: ObjectStore, uri: str, target: Path) -> str:
        """Copies an object; gives its hash."""
        hasher = hashlib.sha256()

        def seen(chunk: bytes) -> None:
            self._count += len(chunk)
            if self._count > self._max_bytes:
                raise too_large(self._max_bytes)
            hasher.update(chunk)

        store.get_file(uri, target, seen)
        return hasher.hexdigest()


def _below(store: ObjectStore, location: Location, max_files: int) -> list[ObjectInfo]:
    found: list[ObjectInfo] = []
    try:
        for info in store.list(location.uri):
            if len(found) == max_files:
                raise FailedPrecondition(f"{location.field}: there are more than {max_files} objects below this URI")
            found.append(info)
    except NotFound:
        return []
    return found
