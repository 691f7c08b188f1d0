"""Where models and stages are loaded from. Loading runs code, so only from roots that the configuration names."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

MAX_URI_LENGTH = 2048


class ModelStorage:
    """Brings a storageUri to a local path.

    Args:
        roots: URIs below which loading is allowed.
        scratch_dir: Where what lies in an object store is put while it is being loaded.
    """

    def __init__(self, roots: Sequence[str], scratch_dir: Path) -> None:
        self._roots = [_split(root, "model_roots") for root in roots]
        self._scratch_dir = scratch_dir

    def check(self, uri: str, field: str) -> None:
        """Checks that a URI may be loaded, without looking whether there is something.

        Raises:
            InvalidArgument: It is not a URI of a known scheme.
            FailedPrecondition: It lies outside the roots.
        """
        scheme, place = _split(uri, field)
        if not any(scheme == root_scheme and _is_below(scheme, place, root) for root_scheme, root in self._roots):
            raise FailedPrecondition(
                f"{field}: models are code, and are loaded only from the roots that MLMESH_SERVING_MODEL_ROOTS names"
            )

    @contextmanager
    def local(self, uri: str, field: str) -> Iterator[Path]:
        """Gives the local file or folder; what was downloaded is gone on leaving.

        Raises:
            InvalidArgument: There is nothing.
            FailedPrecondition: It lies outside the roots.
        """
        self.check(uri, field)
        scheme, place = _split(uri, field)
        nothing = InvalidArgument("there is nothing at this URI", field=field)
        if scheme == "file":
            path = Path(place).resolve()
            if not path.exists():
                raise nothing
            yield path
            return
        from mlmesh_kit.objectstore import open_store

        self._scratch_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch_dir) as scratch:
            folder = Path(scratch).resolve()
            store = open_store(uri)
            if store.exists(uri):
                file = folder / Path(place).name
                store.get_file(uri, file)
                yield file
            else:
                store.get_tree(uri, folder)
                if not any(folder.iterdir()):
                    raise nothing
                yield folder


def check_inside(folder: Path, file: Path) -> Path:
    """Gives a file of a folder; symbolic links must not lead out of it.

    Raises:
        FailedPrecondition: They do.
    """
    if not file.resolve().is_relative_to(folder.resolve()):
        raise FailedPrecondition(f"{file.name} is a link that leads out of its folder")
    return file


def _split(uri: str, field: str) -> tuple[str, str]:
    problem = InvalidArgument("must be a URI file:///..., s3://bucket/... or minio://bucket/...", field=field)
    if len(uri) > MAX_URI_LENGTH or not uri.isprintable():
        raise problem
    try:
        parts = urlsplit(uri)
        is_file = parts.scheme == "file"
        known = is_file or parts.scheme in {"s3", "minio"}
        if not known or is_file == bool(parts.netloc) or parts.query or parts.fragment:
            raise problem
    except ValueError as error:  # brackets that urlsplit takes for an IPv6 address
        raise problem from error
    place = unquote(parts.path) if is_file else f"{parts.netloc}{parts.path}"
    if not place.isprintable():
        raise problem
    return parts.scheme, place


def _is_below(scheme: str, place: str, root: str) -> bool:
    if scheme == "file":
        try:
            return Path(place).resolve().is_relative_to(Path(root).resolve())  # symbolic links followed
        except (OSError, RuntimeError):  # a name too long, links in a circle
            return False
    parts, wanted = place.split("/"), root.rstrip("/").split("/")
    return ".." not in parts and parts[: len(wanted)] == wanted
