"""Artifacts in object stores, for tasks that see plain files: inputs come before an attempt, outputs go after it.

Nothing half-written is an artifact: each attempt has a place of its own below its task's, a folder counts by its
record, which is written last, and the outputs are told to the database after that.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mlmesh_kit.errors import NotFound, ServiceError
from mlmesh_kit.objectstore import below
from mlmesh_kit.objectstore.s3 import S3Settings

from mlmesh_pipeline.artifact_stores import ArtifactStores, is_remote
from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine import remote, trees
from mlmesh_pipeline.engine.executor_io import digest_of
from mlmesh_pipeline.engine.input_cache import InputCache
from mlmesh_pipeline.engine.input_fetcher import InputFetcher
from mlmesh_pipeline.engine.output_sender import OutputSender
from mlmesh_pipeline.engine.paths import distinct, file_path, file_uri, safe
from mlmesh_pipeline.engine.remote import Unusable
from mlmesh_pipeline.engine.transfers import StoreAway, Transfers, together
from mlmesh_pipeline.engine.trees import BadTree
from mlmesh_pipeline.resources import NO_CONTENT, Artifact, Values

if TYPE_CHECKING:
    from mlmesh_pipeline.engine.worker import Work

logger = logging.getLogger(__name__)

Told = Callable[[str], None]


class NotStaged(Exception):
    """An input cannot be had, or an output cannot be stored; the message says which and why."""


@dataclass(slots=True)
class Staged:
    """What a task is given.

    Attributes:
        inputs: With URIs of this machine.
        output_uri: Where the task writes, on this machine.
        is_remote: Whether what it writes goes to an object store.
        origins: The input artifacts that were fetched, by the path at which they are.
        marks: What the files at these paths looked like.
        hint: What to add when the task fails; empty or ends a sentence.
    """

    inputs: Values
    output_uri: str
    is_remote: bool = False
    origins: dict[Path, Artifact] = field(default_factory=dict)
    marks: dict[Path, str] = field(default_factory=dict)
    hint: str = ""

    def digest(self, uri: str) -> str:
        """Gives the digest of an output; nothing where `Staging.store` will come by it."""
        return "" if self.origins or self.is_remote else digest_of(uri)


class Staging:
    """Brings inputs and takes outputs, for all attempts of a service.

    Args:
        settings: Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stores = ArtifactStores(settings)
        self._is_configured = S3Settings().is_configured
        patience = settings.store_retry_seconds if self._is_configured else 0
        self._transfers = Transfers(settings.transfers, patience)
        room, age = settings.input_cache_bytes, settings.input_cache_seconds
        self._cache = InputCache(settings.service_dir / "inputs", room, age)
        self._fetcher = InputFetcher(self._stores, self._transfers, self._cache, settings.max_input_bytes)
        self._sender = OutputSender(self._stores, self._transfers)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Staging"]:
        """Cleans the cache of inputs; when left, ends what is on its way."""
        await asyncio.to_thread(self._cache.clean)
        try:
            yield self
        finally:
            await self._fetcher.close()

    # -- inputs --------------------------------------------------------------------------------------------------

    async def fetch(self, attempt: "Work") -> Staged:
        """Brings the inputs of an attempt to this machine, into its folder.

        Raises:
            NotStaged: One cannot be had.
        """
        staged = Staged(attempt.inputs, attempt.output_uri)
        told = partial(_tell, attempt.log_path)
        wanted = {
            (name, number): item
            for name, items in attempt.inputs.artifacts.items()
            for number, item in enumerate(items)
            if is_remote(item.uri)
        }
        if wanted:
            places = {
                at: attempt.scratch / "inputs" / distinct(at[0]) / str(at[1]) / _basename(item.uri)
                for at, item in wanted.items()
            }
            await together(self._input(item, places[at], told, at[0]) for at, item in wanted.items())
            staged.origins = {places[at]: item for at, item in wanted.items()}
            staged.marks = await asyncio.to_thread(lambda: {path: _mark(path) for path in staged.origins})
            staged.inputs = replace(attempt.inputs, artifacts=_localised(attempt.inputs, places))
        if is_remote(attempt.output_uri):
            local = attempt.scratch / "outputs"
            local.mkdir(mode=0o700)
            staged.output_uri, staged.is_remote = file_uri(local), True
        elsewhere = [
            f"input {name!r} ({item.uri})"
            for name, items in attempt.inputs.artifacts.items()
            for item in items
            if not is_remote(item.uri) and file_path(item.uri) is None
        ]
        if elsewhere:
            staged.hint = f" (of {elsewhere[0]}, the task has the URI only: what is fetched is s3:// and minio://)"
        return staged

    async def _input(self, artifact: Artifact, target: Path, told: Told, name: str) -> None:
        if artifact.etag == NO_CONTENT:
            return
        with _problems(f"input artifact {name!r} ({artifact.uri})"):
            await asyncio.to_thread(partial(target.parent.mkdir, parents=True, exist_ok=True, mode=0o700))
            await self._fetcher.fetch(artifact, target, told)

    # -- outputs -------------------------------------------------------------------------------------------------

    async def store(self, attempt: "Work", staged: Staged, outputs: Values) -> Values:
        """Takes the outputs of an attempt that succeeded to where they belong; gives them with their URIs there.

        Raises:
            NotStaged: One cannot be stored.
        """
        if not staged.is_remote and not staged.origins and not _is_any_below(attempt.scratch, outputs):
            return outputs
        told = partial(_tell, attempt.log_path)
        place = f"{attempt.output_uri}/{attempt.number}" if staged.is_remote else attempt.output_uri
        if staged.is_remote and attempt.number > 1:
            await self._sender.clear(attempt.output_uri, told)
        kept: dict[str, list[Artifact]] = {}
        for name, items in outputs.artifacts.items():
            with _problems(f"output artifact {name!r}"):
                kept[name] = await together(
                    self._output(item, attempt, staged, below(place, name) + (f"/{number}" if items[1:] else ""), told)
                    for number, item in enumerate(items)
                )
        return replace(outputs, artifacts=kept)

    async def _output(self, artifact: Artifact, attempt: "Work", staged: Staged, uri: str, told: Told) -> Artifact:
        local = file_path(artifact.uri)
        if local is None:
            return artifact
        path = await asyncio.to_thread(lambda: Path(os.path.normpath(local)))
        if (given := await asyncio.to_thread(_given_again, path, staged)) is not None:
            return replace(artifact, uri=given.uri, digest=given.digest, etag=given.etag)
        if not path.is_relative_to(attempt.scratch):
            return replace(artifact, digest=artifact.digest or await asyncio.to_thread(digest_of, artifact.uri))
        if path.name != artifact.name:  # the task has chosen a name; libraries go by its ending
            uri = below(uri, path.name)
        if is_remote(uri):
            return await self._sender.send(artifact, path, uri, told)
        await asyncio.to_thread(_keep, path, file_path(uri))
        return replace(artifact, uri=uri, digest=artifact.digest or await asyncio.to_thread(digest_of, uri))

    # -- questions -----------------------------------------------------------------------------------------------

    async def identify(self, uri: str) -> tuple[str, str]:
        """Gives the digest of what an importer names, if it is on this machine, or else what a store calls it, if any.

        The store is asked once, and only if there is one configured: an importer records, it need not reach.
        """
        if not is_remote(uri):
            return await asyncio.to_thread(digest_of, uri), ""
        if not self._is_configured:
            return "", ""
        try:
            store = self._stores.of(uri)
            return "", await self._transfers.run(
                lambda check: remote.name_of(store, uri, check), _tell_nobody, patient=False
            )
        except (StoreAway, ServiceError) as error:
            logger.info("imported as it is: %s: %s", uri, error)
            return "", ""

    async def is_there(self, values: Values) -> bool:
        """Tells whether cached artifacts are still there and as they were."""
        if not any(is_remote(item.uri) for items in values.artifacts.values() for item in items):
            return await asyncio.to_thread(_are_files_there, values)
        try:
            checks = [self._is_there(item) for items in values.artifacts.values() for item in items]
            return all(await together(checks))
        except StoreAway as error:
            logger.warning("the cache is not used: %s", error)
            return False

    async def _is_there(self, artifact: Artifact) -> bool:
        if not is_remote(artifact.uri):
            return await asyncio.to_thread(_are_files_there, Values({}, {artifact.name: [artifact]}))
        if not artifact.etag or artifact.etag == NO_CONTENT:
            return True
        try:
            store = self._stores.of(artifact.uri)
            return await self._transfers.run(
                lambda check: remote.is_as_it_was(store, artifact, check), _tell_nobody, patient=False
            )
        except ServiceError as error:
            logger.info("a cached artifact cannot be used: %s", error)
            return False


def _are_files_there(values: Values) -> bool:
    for items in values.artifacts.values():
        for artifact in items:
            if artifact.digest and digest_of(artifact.uri) != artifact.digest:
                return False
    return True


def _given_again(path: Path, staged: Staged) -> Artifact | None:
    """Gives the input (or a part of it) that a task gives as its output, if it has not changed it."""
    for place, origin in staged.origins.items():
        if path == place or path.is_relative_to(place):
            if _mark(place) != staged.marks[place]:
                return None
            if path == place:
                return origin
            part = below(origin.uri, path.relative_to(place).as_posix())
            return replace(origin, uri=part, digest=digest_of(file_uri(path)) if path.is_file() else "", etag="")
    return None


def _mark(path: Path) -> str:
    """Gives what changes when a file, or a file of a folder, is written to."""
    if not path.is_dir():
        return _signature(path) if path.exists() else ""
    return "\n".join(f"{name}\0{_signature(file)}" for file, name in trees.walk(path))


def _signature(path: Path) -> str:
    about = path.stat()
    return f"{about.st_size} {about.st_mtime_ns}"


def _keep(path: Path, target: Path | None) -> None:
    """Takes a file or folder out of the attempt's folder, which goes away."""
    if target is None or target.exists() or not path.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        shutil.move(path, target)
    elif path.is_dir():
        shutil.copytree(path, target)
    else:
        shutil.copyfile(path, target)


def _is_any_below(folder: Path, values: Values) -> bool:
    """Tells whether an artifact is in a folder: where `dsl.get_uri` points to, for one."""
    places = [file_path(item.uri) for items in values.artifacts.values() for item in items]
    return any(place is not None and place.is_relative_to(folder) for place in places)


# -- small things ----------------------------------------------------------------------------------------------------


def _basename(uri: str) -> str:
    """Gives the last part of a URI as a name here: libraries go by its ending."""
    return safe(unquote(uri.rstrip("/").rsplit("/", 1)[-1]))


def _localised(inputs: Values, places: dict[tuple[str, int], Path]) -> dict[str, list[Artifact]]:
    return {
        name: [
            replace(item, uri=file_uri(places[name, number])) if (name, number) in places else item
            for number, item in enumerate(items)
        ]
        for name, items in inputs.artifacts.items()
    }


@contextlib.contextmanager
def _problems(what: str) -> Iterator[None]:
    """Says of an exception what it befell."""
    try:
        yield
    except StoreAway as error:
        raise NotStaged(f"{what}: {error}") from error
    except NotFound as error:
        raise NotStaged(f"{what}: there is nothing ({error.message})") from error
    except ServiceError as error:
        raise NotStaged(f"{what}: {error.message}") from error
    except RecursionError as error:
        raise NotStaged(f"{what}: its folders are too deep") from error
    except (BadTree, Unusable, NotStaged) as error:
        raise NotStaged(f"{what}: {error}") from error
    except OSError as error:
        raise NotStaged(f"{what}: {error.strerror or 'it cannot be read or written here'}") from error


def _tell(log_path: Path, words: str) -> None:
    logger.warning("%s: %s", log_path, words)
    with contextlib.suppress(OSError), log_path.open("a") as log:
        log.write(f"[mlmesh] {words}\n")


def _tell_nobody(_: str) -> None:
    return
