"""Artifacts between the object store and the folders of a pod; stored as the local engine stores them."""

import os
from dataclasses import replace
from pathlib import Path

from mlmesh_kit.errors import NotFound
from mlmesh_kit.objectstore import ObjectStore, below

from mlmesh_pipeline.argo.state import patiently
from mlmesh_pipeline.engine import remote, trees
from mlmesh_pipeline.engine.trees import Tree
from mlmesh_pipeline.resources import NO_CONTENT, Artifact


def fetch_artifact(store: ObjectStore, artifact: Artifact, path: Path) -> None:
    """Copies an artifact, a file or what is below its URI, to a path.

    Raises:
        NotFound: There is nothing, though its digest says that there was.
        Unusable: It has changed since it was recorded.
    """
    make_open(path.parent)
    if artifact.etag == NO_CONTENT:
        return
    try:
        found = patiently(lambda: remote.look(store, artifact, _go_on))
    except NotFound:
        if artifact.digest:
            raise
        path.mkdir(parents=True, exist_ok=True)
        return
    if found.tree is None:
        patiently(lambda: remote.get(store, artifact.uri, path, found.digest, _go_on))
        return
    path.mkdir(parents=True, exist_ok=True)
    for name in found.tree.folders:
        (path / name).mkdir(parents=True, exist_ok=True)
    for member in found.tree.files:
        target, uri = path / member.path, below(artifact.uri, member.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        patiently(lambda uri=uri, target=target, sha=member.sha256: remote.get(store, uri, target, sha, _go_on))  # type: ignore[misc]


def send_artifact(store: ObjectStore, path: Path, artifact: Artifact) -> Artifact:
    """Puts what is at a path into the store, in the place of what is there; gives the artifact as it is stored."""
    uri = artifact.uri
    patiently(lambda: (store.delete(trees.record_uri(uri)), store.delete_tree(uri)))  # of an attempt before this one
    if path.is_file():
        sent = patiently(lambda: remote.put(store, path, uri, _go_on))
        return replace(artifact, digest=sent.sha256, etag=sent.etag)
    if not path.is_dir():
        return replace(artifact, digest="", etag=NO_CONTENT)
    members = []
    for file, name in trees.walk(path):
        put = patiently(lambda file=file, name=name: remote.put(store, file, below(uri, name), _go_on, name=name))  # type: ignore[misc]
        members.append(put)
    tree = Tree(tuple(members), trees.empty_folders(path))
    info = patiently(lambda: store.put_bytes(trees.dump_record(tree), trees.record_uri(uri)))
    return replace(artifact, digest=tree.digest, etag=info.etag)


def is_stored(store: ObjectStore, artifact: Artifact) -> bool:
    """Tells whether the store has an artifact as it was recorded."""
    return patiently(lambda: remote.is_as_it_was(store, artifact, _go_on))


def make_open(folder: Path) -> None:
    """Makes a folder that the user's image may write to, whoever it runs as."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        os.chmod(one, 0o777)  # noqa: S103 (the volume is of this pod alone)


def _go_on() -> None:
    """Nothing ends a transfer of a pod but the pod's end."""
