"""Brings what a storageUri names to this machine."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_serving.storage.archive import UnpackLimits, is_archive, only_folder, unpack
from mlmesh_serving.storage.cache import Kind, ModelCache, Source
from mlmesh_serving.storage.digest import digest_of
from mlmesh_serving.storage.local_model import LocalModel, code_refused
from mlmesh_serving.storage.location import WEB, Location, Roots, parse_location
from mlmesh_serving.storage.object_download import Objects, download_objects, find_objects
from mlmesh_serving.storage.web_download import WebDownloader, file_name

if TYPE_CHECKING:
    from mlmesh_serving.storage.registry import MetadataRegistry


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Where models may come from, and how much of them.

    Args:
        model_roots: URIs of files and object stores below which loading is allowed.
        pickle_roots: URIs below which pickles and code may be loaded, too.
        hosts: Those that are asked by http(s), as `mlmesh_kit.fetch.Fetcher` takes them.
        cache_dir: Where what was downloaded is kept.
        max_model_bytes: Largest model, also when it is unpacked.
        max_model_files: Most files of one.
        cache_bytes: Of all that is kept.
        cache_seconds: How long it is kept when nobody uses it.
        download_seconds: How long a download by http(s) may take.
        metadata_address: gRPC address of the metadata service; empty: there is none.
        user: As whom the metadata service is asked.
    """

    model_roots: Sequence[str]
    pickle_roots: Sequence[str]
    cache_dir: Path
    hosts: str = ""
    max_model_bytes: int = 4 << 30
    max_model_files: int = 10_000
    cache_bytes: int = 16 << 30
    cache_seconds: float = 30 * 86_400.0
    download_seconds: float = 600.0
    metadata_address: str = ""
    user: str = ""


class ModelStorage:
    """Brings a storageUri to a local path.

    Args:
        config: Where models may come from.
    """

    def __init__(self, config: StorageConfig) -> None:
        self._config = config
        self._roots = Roots(config.model_roots, "model_roots")
        self._code_roots = Roots(config.pickle_roots, "pickle_roots")
        self._cache = ModelCache(config.cache_dir, config.cache_bytes, config.cache_seconds)

    def check(self, uri: str, field: str, code: str = "") -> None:
        """Checks that a URI may be loaded, without looking whether there is something.

        What `mlmd://` leads to is checked when it is loaded.

        Args:
            uri: A storageUri.
            field: Where the manifest says it.
            code: What is loaded, if that can run code (Python code, a pickle); empty: it cannot, or may not.

        Raises:
            InvalidArgument: It is not a URI of a known scheme.
            FailedPrecondition: It lies outside the roots.
        """
        location = parse_location(uri, field)
        if location.scheme == "mlmd":
            self._registry().check(location)
            return
        self._check(location)
        if code and not self._code_roots.hold(location):
            raise FailedPrecondition(code_refused(field, code))

    def resolve(self, uri: str, field: str) -> str:
        """Gives the URI that a registered model lies at; any other as it is. Blocks for `mlmd://`.

        Raises:
            InvalidArgument, FailedPrecondition, Unavailable: See `MetadataRegistry.resolve`.
        """
        location = parse_location(uri, field)
        return self._registry().resolve(location) if location.scheme == "mlmd" else location.uri

    @contextmanager
    def local(self, uri: str, field: str, sha256: str = "") -> Iterator[LocalModel]:
        """Gives what the URI names on this machine; it stays there until it is left. Blocks.

        Args:
            uri: A storageUri.
            field: Where the manifest says it.
            sha256: What the hash must be, in hexadecimal; empty: any.

        Raises:
            InvalidArgument: There is nothing.
            FailedPrecondition: It lies outside the roots, is too large, or has another hash.
            Unavailable: The store or the host does not answer.
        """
        location = parse_location(self.resolve(uri, field), field)
        if location.scheme == "mlmd":
            raise FailedPrecondition(f"{field}: the registered model's URI is another registered model")
        self._check(location)
        may_run_code = self._code_roots.hold(location)
        with ExitStack() as stack:
            path, digest = self._brought(location, sha256, stack)
            yield LocalModel(path, _shown(location), digest, may_run_code, field)

    def _brought(self, location: Location, sha256: str, stack: ExitStack) -> tuple[Path, str]:
        """Gives the path and the hash; the stack keeps what was downloaded."""
        if location.scheme == "file" and not is_archive(location.name):
            path = Path(location.place).resolve()
            if not path.exists():
                raise _nothing(location)
            digest = digest_of(path, self._config.max_model_files)
            _check_digest(digest, sha256, location)
            return path, digest
        if sha256:
            for kind in _kinds(location):
                kept = stack.enter_context(self._cache.using(sha256, kind, _file_name(location)))
                if kept is not None:
                    return _entry_point(kept, kind), sha256
        while True:
            source = self._fetched(location, sha256)
            kind = Kind(source.kind)
            kept = stack.enter_context(self._cache.using(source.digest, kind, source.name))
            if kept is not None:  # else it was pruned in between
                _check_digest(source.digest, sha256, location)
                return _entry_point(kept, kind), source.digest

    def _fetched(self, location: Location, sha256: str) -> Source:
        """Sees to it that the source's content is in the cache."""
        with self._cache.source(location.uri) as opened:
            last = opened.last()
            if last is not None:
                with self._cache.using(last.digest, Kind(last.kind), last.name) as there:
                    last = last if there is not None else None
            found = self._downloaded(location, last, sha256)
            opened.remember(found)
        return found

    def _downloaded(self, location: Location, last: Source | None, sha256: str) -> Source:
        config = self._config
        objects: Objects | None = None
        if location.scheme not in WEB:
            objects = find_objects(location, config.max_model_bytes, config.max_model_files)
            if last is not None and last.tag == objects.tag:
                return last
        with self._cache.scratch() as scratch:
            made = scratch / "made"
            made.mkdir()
            if objects is not None:
                tag, name = objects.tag, location.name
                digest = download_objects(objects, made, config.max_model_bytes)
                kind = Kind.FILE if objects.is_file else Kind.FOLDER
            else:
                name, kind, hasher = file_name(location), Kind.FILE, hashlib.sha256()
                fetched = self._web(location.field).download(location, made / name, hasher, last.tag if last else "")
                if last is not None and fetched.is_unchanged:
                    return last
                tag, digest = fetched.etag, hasher.hexdigest()
            _check_digest(digest, sha256, location)
            if kind is Kind.FILE and is_archive(name):
                kind = Kind.ARCHIVE
                unpacked = scratch / "unpacked"
                unpacked.mkdir()
                unpack(made / name, unpacked, UnpackLimits(config.max_model_bytes, config.max_model_files))
                made = unpacked
            self._cache.put(made, digest, kind)
        return Source(tag, digest, kind.value, name)

    def _check(self, location: Location) -> None:
        """Checks that a place may be loaded from."""
        if location.scheme in WEB:
            self._web(location.field).check(location)
        elif not self._roots.hold(location):
            raise FailedPrecondition(
                f"{location.field}: models are loaded only from below the roots that MLMESH_SERVING_MODEL_ROOTS names"
            )

    def _web(self, field: str) -> WebDownloader:
        return WebDownloader(self._config.hosts, self._config.max_model_bytes, self._config.download_seconds, field)

    def _registry(self) -> "MetadataRegistry":
        from mlmesh_serving.storage.registry import MetadataRegistry

        return MetadataRegistry(self._config.metadata_address, self._config.user)


def _shown(location: Location) -> str:
    """Gives the URI without its query, which may hold a secret."""
    return urlsplit(location.uri)._replace(query="").geturl()


def _kinds(location: Location) -> tuple[Kind, ...]:
    if is_archive(_file_name(location)):
        return (Kind.ARCHIVE,)
    return (Kind.FILE,) if location.scheme in WEB else (Kind.FILE, Kind.FOLDER)


def _file_name(location: Location) -> str:
    return file_name(location) if location.scheme in WEB else location.name


def _entry_point(path: Path, kind: Kind) -> Path:
    return only_folder(path) if kind is Kind.ARCHIVE else path


def _check_digest(digest: str, sha256: str, location: Location) -> None:
    if sha256 and digest != sha256:
        raise FailedPrecondition(f"{location.field}: the model's SHA-256 is {digest}, and the manifest says {sha256}")


def _nothing(location: Location) -> InvalidArgument:
    return InvalidArgument("there is nothing at this URI", field=location.field)
