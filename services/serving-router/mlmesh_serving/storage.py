"""Where models and stages are loaded from. Loading runs code, so only from roots that the configuration names."""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_kit.objectstore import open_store


class ModelStorage:
    """Brings a storageUri to a local path.

    Args:
        roots: URIs below which loading is allowed.
        cache_dir: Where what lies in an object store is kept.
    """

    def __init__(self, roots: Sequence[str], cache_dir: Path) -> None:
        self._roots = [_split(root, "model_roots") for root in roots]
        self._cache_dir = cache_dir

    def check(self, uri: str, field: str) -> None:
        """Checks that a URI may be loaded, without looking whether there is something.

        Raises:
            InvalidArgument: It is not a URI of a known scheme.
            FailedPrecondition: It lies outside the roots.
        """
        scheme, place = _split(uri, field)
        for root_scheme, root in self._roots:
            if scheme == root_scheme and _is_below(scheme, place, root):
                return
        raise FailedPrecondition(
            f"{field}: models are code, and are loaded only from the roots that MLMESH_SERVING_MODEL_ROOTS names"
        )

    def fetch(self, uri: str, field: str) -> Path:
        """Gives the local file or folder.

        Raises:
            InvalidArgument: There is nothing.
            FailedPrecondition: It lies outside the roots.
        """
        self.check(uri, field)
        scheme, place = _split(uri, field)
        if scheme == "file":
            path = Path(place)
            if not path.exists():
                raise InvalidArgument("there is nothing at this URI", field=field)
            return path
        return self._download(uri, field)

    def _download(self, uri: str, field: str) -> Path:
        target = self._cache_dir / hashlib.sha256(uri.encode()).hexdigest()
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=self._cache_dir))
        store = open_store(uri)
        if store.exists(uri):
            store.get_file(uri, scratch / Path(uri).name)
        else:
            store.get_tree(uri, scratch)
        if not any(scratch.iterdir()):
            scratch.rmdir()
            raise InvalidArgument("there is nothing at this URI", field=field)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
        return target


def _split(uri: str, field: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    if parts.scheme not in {"file", "s3", "minio"} or (parts.scheme == "file" and parts.netloc):
        raise InvalidArgument("must be a URI file:///..., s3://bucket/... or minio://bucket/...", field=field)
    return parts.scheme, unquote(parts.path) if parts.scheme == "file" else f"{parts.netloc}{parts.path}"


def _is_below(scheme: str, place: str, root: str) -> bool:
    if scheme == "file":
        return Path(place).resolve().is_relative_to(Path(root).resolve())  # symbolic links followed
    parts = place.split("/")
    return ".." not in parts and parts[: len(root.split("/"))] == root.rstrip("/").split("/")
