"""Sends what tasks wrote to an object store."""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlmesh_kit.errors import ServiceError
from mlmesh_kit.objectstore import below

from mlmesh_pipeline.artifact_stores import ArtifactStores
from mlmesh_pipeline.engine import remote, trees
from mlmesh_pipeline.engine.transfers import Check, StoreAway, Transfers, together
from mlmesh_pipeline.engine.trees import BadTree, Tree
from mlmesh_pipeline.resources import NO_CONTENT, Artifact

logger = logging.getLogger(__name__)
Told = Callable[[str], None]


class OutputSender:
    """Sends artifacts.

    Args:
        stores: Where they go.
        transfers: Runs the sends.
    """

    def __init__(self, stores: ArtifactStores, transfers: Transfers) -> None:
        self._stores = stores
        self._transfers = transfers

    async def send(self, artifact: Artifact, path: Path, uri: str, told: Told) -> Artifact:
        """Sends the file or folder at a path; gives the artifact as it is there. Of a folder, the record goes last.

        Args:
            artifact: What it is.
            path: Where it is; nothing there is fine.
            uri: Where it goes.
            told: Is told when the store cannot be reached.

        Raises:
            BadTree: The folder cannot be stored.
            StoreAway: The store could not be reached for too long.
            ServiceError: It refused.
            OSError: It cannot be read.
        """
        store = self._stores.of(uri)
        files = await asyncio.to_thread(_files_of, path)
        if files is None:
            return replace(artifact, uri=uri, digest="", etag=NO_CONTENT)
        if files and files[0] == (path, ""):
            sent = await self._transfers.run(partial(remote.put, store, path, uri), told)
            return replace(artifact, uri=uri, digest=sent.sha256, etag=sent.etag)
        puts = (partial(remote.put, store, file, below(uri, name), name=name) for file, name in files)
        members = await together(self._transfers.run(put, told) for put in puts)
        tree = Tree(tuple(members), await asyncio.to_thread(trees.empty_folders, path))
        record, where = trees.dump_record(tree), trees.record_uri(uri)
        info = await self._transfers.run(lambda _: store.put_bytes(record, where), told)
        return replace(artifact, uri=uri, digest=tree.digest, etag=info.etag)

    async def clear(self, place: str, told: Told) -> None:
        """Removes what earlier attempts left. They have places of their own, so that it can be left to another day."""

        def clear(check: Check) -> None:
            check()
            store = self._stores.of(place)
            store.abort_uploads(place)
            store.delete_tree(place)

        try:
            await self._transfers.run(clear, told)
        except (StoreAway, ServiceError) as error:
            logger.warning("what earlier attempts left below %s stays: %s", place, error)


def _files_of(path: Path) -> list[tuple[Path, str]] | None:
    """Gives the files of a folder and their names in it; a file has the name "". None: there is neither."""
    if path.is_file():
        return [(path, "")]
    if not path.is_dir():
        return None
    files = list(trees.walk(path))
    for _, name in files:
        if os.fsencode(name).decode(errors="ignore") != name:
            raise BadTree(f"the name of the file {name!r} is not UTF-8")
    trees.check_names([name for _, name in files])
    return files
