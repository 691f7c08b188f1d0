"""Artifacts by URI: files under a root, or any S3. The scheme of the URI decides."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.objectstore.base import ObjectInfo, ObjectStore, Seen, below, relative_name
from mlmesh_kit.objectstore.files import FileStore

__all__ = ["FileStore", "ObjectInfo", "ObjectStore", "Seen", "below", "open_store", "relative_name"]


def open_store(root_uri: str) -> ObjectStore:
    """Opens the store that a URI lies in.

    Args:
        root_uri: `file:///folder` (nothing outside that folder is touched), `s3://bucket/...` or `minio://bucket/...`
            (the settings of `S3Settings` say where and with which keys).

    Raises:
        InvalidArgument: It is no URI of these schemes.
    """
    parts = urlsplit(root_uri)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FileStore(Path(unquote(parts.path)))
    if parts.scheme in {"s3", "minio"} and parts.netloc:
        from mlmesh_kit.objectstore.s3 import S3Settings, S3Store

        return S3Store(S3Settings())
    raise InvalidArgument("must be a URI file:///..., s3://bucket/... or minio://bucket/...", field="uri")
