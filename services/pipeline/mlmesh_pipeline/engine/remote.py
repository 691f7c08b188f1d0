"""What is done with objects of a store, each step in a thread: looked for, fetched, sent, compared."""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from mlmesh_kit.errors import NotFound
from mlmesh_kit.objectstore import ObjectInfo, ObjectStore, relative_name

from mlmesh_pipeline.engine import trees
from mlmesh_pipeline.engine.transfers import Check
from mlmesh_pipeline.engine.trees import BadTree, Member, Tree
from mlmesh_pipeline.resources import Artifact

_MOST_LISTED = 10_000  # objects of an imported folder that its cache key looks at


class Unusable(Exception):
    """What is in the store cannot be used: it is not what was recorded, or too much; the message says so."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a URI: an object, or (`tree`) a folder.

    Attributes:
        key: The same for the same content at the same place.
        size: Bytes.
        tree: Its files, if it is a folder.
        digest: SHA-256 that an object must have; empty: not known.
    """

    key: str
    size: int
    tree: Tree | None = None
    digest: str = ""


def key_of(uri: str, version: str) -> str:
    """Gives the key of some content at a place."""
    return hashlib.sha256(f"{uri}\0{version}".encode()).hexdigest()


def look(store: ObjectStore, artifact: Artifact, check: Check) -> Found:
    """Looks what is at a URI: an object, a folder with a record, or else all that is below it."""
    uri = artifact.uri.rstrip("/")
    with contextlib.suppress(NotFound):
        info = store.stat(uri)
        return Found(key_of(uri, artifact.digest or info.etag), info.size, digest=artifact.digest)
    check()
    tree = _recorded(store, uri)
    if tree is not None:
        if artifact.digest and tree.digest != artifact.digest:
            raise Unusable("it has changed since it was recorded")
        return Found(key_of(uri, artifact.digest or tree.digest), tree.size, tree)
    listed = []
    for info in store.list(uri):
        check()
        listed.append(_member(info, uri))
        if len(listed) > trees.MAX_FILES:
            raise BadTree(f"the folder has more than {trees.MAX_FILES} files")
    if not listed or artifact.digest:
        raise NotFound("object", uri)
    trees.check_names([member.path for member in listed])
    tree = Tree(tuple(listed))
    return Found(key_of(uri, tree.etag), tree.size, tree)


def _recorded(store: ObjectStore, uri: str) -> Tree | None:
    try:
        return trees.load_record(store.get_bytes(trees.record_uri(uri), trees.MAX_RECORD_BYTES))
    except NotFound:
        return None


def name_of(store: ObjectStore, uri: str, check: Check) -> str:
    """Gives what changes when what is at a URI does; empty where there is nothing, or too much to look at."""
    uri = uri.rstrip("/")
    with contextlib.suppress(NotFound):
        return store.stat(uri).etag
    check()
    members = []
    for info in store.list(uri):
        members.append(_member(info, uri))
        if len(members) > _MOST_LISTED:
            return ""
    return Tree(tuple(members)).etag if members else ""


def is_as_it_was(store: ObjectStore, artifact: Artifact, check: Check) -> bool:
    """Compares what the store says of an artifact with what was recorded; nothing is read but a folder's record."""
    with contextlib.suppress(NotFound):
        return store.stat(artifact.uri).etag == artifact.etag
    try:
        if store.stat(trees.record_uri(artifact.uri)).etag != artifact.etag:
            return False
    except NotFound:
        return False
    tree = _recorded(store, artifact.uri)
    if tree is None or tree.digest != artifact.digest:
        return False
    there = {}
    for info in store.list(artifact.uri):
        check()
        there[relative_name(info.uri, artifact.uri)] = (info.size, info.etag)
    return all(there.get(member.path) == (member.size, member.etag) for member in tree.files)


def get(store: ObjectStore, uri: str, path: Path, digest: str, check: Check) -> None:
    """Fetches an object into a file.

    Raises:
        Unusable: Its SHA-256 is not `digest` (empty: any is good).
    """
    hashed = hashlib.sha256()

    def seen(chunk: bytes) -> None:
        check()
        hashed.update(chunk)

    store.get_file(uri, path, seen)
    if digest and hashed.hexdigest() != digest:
        path.unlink()
        raise Unusable(f"{uri} has changed since it was recorded")


def put(store: ObjectStore, path: Path, uri: str, check: Check, *, name: str = "") -> Member:
    """Sends a file, and hashes it as it goes."""
    hashed = hashlib.sha256()

    def seen(chunk: bytes) -> None:
        check()
        hashed.update(chunk)

    info = store.put_file(path, uri, seen)
    return Member(name, info.size, hashed.hexdigest(), info.etag)


def _member(info: ObjectInfo, prefix: str) -> Member:
    return Member(relative_name(info.uri, prefix), info.size, "", info.etag)
