"""Where artifacts may be: the artifact root, further pipeline roots, and what importers may name."""

import threading
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.objectstore import ObjectStore, open_store

from mlmesh_pipeline.config import Settings

REMOTE = ("s3://", "minio://")
MAX_URI_LENGTH = 2048


def is_remote(uri: str) -> bool:
    """Tells whether a URI is in an object store that the service reads and writes."""
    return uri.startswith(REMOTE)


class ArtifactStores:
    """The object stores of the service, and which places in them it uses. Safe for threads.

    Args:
        settings: Of the service.

    Raises:
        InvalidArgument: A setting names a place of no store that there is.
    """

    def __init__(self, settings: Settings) -> None:
        self.root = settings.resolved_artifact_root
        self._roots = (self.root, *_split(settings.pipeline_roots))
        sources = _split(settings.import_roots)
        self._sources = None if "*" in sources else (*self._roots, *sources)
        for name, places in [
            ("artifact_root", [self.root]),
            ("pipeline_roots", self._roots),
            ("import_roots", sources),
        ]:
            for place in places:
                if not place.startswith(("file:///", *REMOTE)) and place != "*":
                    raise InvalidArgument("must be file:///..., s3://bucket/... or minio://bucket/...", field=name)
        self._store: ObjectStore | None = None
        self._lock = threading.Lock()

    def of(self, uri: str) -> ObjectStore:
        """Gives the store that a remote URI is in.

        Raises:
            FailedPrecondition: The service may not read there.
        """
        if self._sources is not None and not _is_below(uri, self._sources):
            raise FailedPrecondition(f"{uri} is outside what MLMESH_PIPELINE_IMPORT_ROOTS allows")
        with self._lock:
            if self._store is None:
                self._store = open_store(uri)  # the two schemes have one endpoint, so one store serves both
            return self._store

    def pipeline_root(self, asked: str, field: str) -> str:
        """Checks a pipeline root; gives it as a URI without a slash at its end.

        Args:
            asked: URI, or an absolute path; empty: the artifact root is meant, and nothing is given.
            field: Name of the field that it is in.

        Raises:
            InvalidArgument: It is no place.
            FailedPrecondition: The configuration does not allow it.
        """
        root = asked.rstrip("/")
        if not root:
            return ""
        if root.startswith("/"):
            root = f"file://{root}"
        if is_remote(asked) and not urlsplit(asked).netloc:
            raise InvalidArgument("must name a bucket: s3://bucket/prefix", field=field)
        parts = unquote(root).split("/")
        if ".." in parts or "." in parts:
            raise InvalidArgument("must not have '.' or '..' in it", field=field)
        if len(root) > MAX_URI_LENGTH or not unquote(root).isprintable() or "?" in root or "#" in root:
            message = f"must be printable, without '?' and '#', and have at most {MAX_URI_LENGTH} characters"
            raise InvalidArgument(message, field=field)
        if not _is_below(root, self._roots):
            raise FailedPrecondition(
                f"{field}: must be under {' or '.join(self._roots)}; MLMESH_PIPELINE_PIPELINE_ROOTS can allow more"
            )
        return root

    def default_root(self, asked: str) -> str:
        """Gives the root that a pipeline brings along, if it can be used here; else nothing."""
        try:
            return self.pipeline_root(asked, "pipeline_spec.default_pipeline_root")
        except (InvalidArgument, FailedPrecondition):
            return ""


def _split(text: str) -> list[str]:
    return [one.strip().rstrip("/") for one in text.split(",") if one.strip()]


def _is_below(uri: str, roots: Sequence[str]) -> bool:
    return any(uri == root or uri.startswith(root + "/") for root in roots)
