"""Looks at artifacts that were recorded: whether they are there still, and as they were."""

from mlmesh_kit.errors import FailedPrecondition, NotFound
from mlmesh_kit.objectstore import ObjectStore

from mlmesh_pipeline.artifact_stores import ArtifactStores, is_remote
from mlmesh_pipeline.engine import remote, trees
from mlmesh_pipeline.engine.executor_io import digest_of
from mlmesh_pipeline.resources import Artifact

GONE = "is gone"
CHANGED = "has been changed"


class OutputLook:
    """Compares artifacts with what is there now. It waits for the store: not for the event loop.

    Args:
        stores: Where artifacts may be.
    """

    def __init__(self, stores: ArtifactStores) -> None:
        self._stores = stores

    def __call__(self, artifact: Artifact) -> str:
        """Says what has become of an artifact; "" if it is as it was.

        Raises:
            Unavailable: Its store is away: nothing can be said.
        """
        if not is_remote(artifact.uri):
            there = digest_of(artifact.uri)
            return GONE if not there else "" if there == artifact.digest else CHANGED
        try:
            store = self._stores.of(artifact.uri)
            if artifact.etag and remote.is_as_it_was(store, artifact, _go_on):
                return ""
            if not _is_there(store, artifact.uri):
                return GONE
        except FailedPrecondition:
            return "cannot be read"
        return CHANGED if artifact.etag else ""


def _is_there(store: ObjectStore, uri: str) -> bool:
    for place in (uri, trees.record_uri(uri)):
        try:
            store.stat(place)
        except NotFound:
            continue
        return True
    return False


def _go_on() -> None:
    """Nobody ends a look."""
