"""Folders that hold a virtual environment each: locked while built, shared while used, taken only when finished."""

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import site
import sys
import time
import venv
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from mlmesh_kit.files import remove_tree

_READY = ".ready"
_POLL_SECONDS = 0.1


class EnvironmentFolder:
    """A folder, and the file beside it that locks it, over all replicas on this machine.

    A build that did not end leaves a folder without its sign, which nobody takes.

    Args:
        path: The folder; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin" / "python"
        self._ready = path / _READY
        self._lock = path.with_name(f"{path.name}.lock")

    def is_ready(self) -> bool:
        """Tells whether it was built to its end."""
        return self._ready.exists() and self.python.exists()

    def set_ready(self) -> None:
        """Says that it was built to its end."""
        size = sum(
            os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(self.path) for name in names
        )
        temporary = self._ready.with_suffix(".new")
        temporary.write_text(json.dumps({"bytes": size}))
        os.replace(temporary, self._ready)

    def mark_used(self) -> None:
        """Says that it is used now."""
        with contextlib.suppress(OSError):
            os.utime(self._ready)

    def idle_seconds(self) -> float:
        """How long it has not been used."""
        try:
            return time.time() - self._ready.stat().st_mtime
        except OSError:
            return 0

    def size(self) -> int:
        """Bytes that were installed; 0 if it is not ready."""
        try:
            return int(json.loads(self._ready.read_text())["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def remove(self) -> None:
        """Takes it away, and its lock, which is ours."""
        self._ready.unlink(missing_ok=True)
        remove_tree(self.path)
        self._lock.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Holds it, so that nobody builds it or takes it away."""
        with await self._locked(fcntl.LOCK_SH):
            yield

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Holds it alone."""
        with await self._locked(fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def if_free(self) -> Iterator[bool]:
        """Holds it alone if nobody holds it; tells whether it does."""
        file = self._try(fcntl.LOCK_EX)
        if file is None:
            yield False
            return
        with file:
            yield True

    async def _locked(self, kind: int) -> IO[str]:
        # Asked again and again, not waited for: a wait would take a thread for as long as another replica builds.
        while (file := self._try(kind)) is None:  # noqa: ASYNC110 (no event says that another process is done)
            await asyncio.sleep(_POLL_SECONDS)
        return file

    def _try(self, kind: int) -> IO[str] | None:
        file = self._lock.open("a")
        with contextlib.suppress(OSError):
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino == os.stat(self._lock).st_ino:
                return file
        file.close()  # it is taken, or the file was taken away meanwhile and another is the lock now
        return None


def make_environment(folder: Path, *, with_pip: bool = False) -> None:
    """Makes a virtual environment in which all that this one has can be imported, too, after its own. Blocks.

    Args:
        folder: Where; what is there goes.
        with_pip: Whether it gets a pip of its own.
    """
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=with_pip).create(folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    lines = [f"import site; site.addsitedir({path!r})" for path in _site_folders()]
    (folder / "lib" / version / "site-packages" / "mlmesh_base.pth").write_text("\n".join(lines) + "\n")


def _site_folders() -> list[str]:
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [folder for folder in folders if os.path.isdir(folder)]


def content_hash(requirements: Sequence[str], options: Sequence[str], settings: Mapping[str, str]) -> str:
    """Gives the name of the environment that holds requirements; blocks.

    Args:
        requirements: In any order; of those that are files of this machine the content counts.
        options: Of pip.
        settings: Variables by which pip is told of indexes and the like.
    """
    content = [sorted((text, _digest(text)) for text in requirements), list(options), sorted(settings.items()), _base()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


@functools.cache
def _base() -> list[str]:
    """What lies under all environments: this interpreter, and what is installed for it."""
    names = sorted(f"{one.name}=={one.version}" for one in importlib.metadata.distributions())
    return [sys.version, sys.platform, sys.executable, *names]


def _digest(requirement: str) -> str:
    path = _local_path(requirement)
    if path is None:
        return ""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(one for one in path.rglob("*") if one.is_file())
    stats = [(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def _local_path(requirement: str) -> Path | None:
    """Gives the file or folder of this machine that a requirement names: `/x.whl`, `file:///x.whl`, `x @ file:///x`."""
    text = requirement.partition(" @ ")[2] or requirement
    text = text.partition(";")[0].strip()
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    path = Path(text.partition("[")[0])
    return path if path.is_absolute() and path.exists() else None
