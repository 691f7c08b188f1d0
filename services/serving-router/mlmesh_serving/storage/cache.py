"""Models that were downloaded, kept by content: `content/<hash>.<kind>/`, and by source: `sources/<hash of the URI>`.

Several processes use one folder. What lies in `content` is whole: it was made elsewhere and renamed. Beside each lies a
file `.entry`, whose age says when it was last used, and which is locked while it is.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from mlmesh_kit.files import remove_tree

_SCRATCH_SECONDS = 86_400.0


class Kind(Enum):
    """How a source is kept."""

    FILE = "file"
    FOLDER = "folder"
    ARCHIVE = "archive"
    """Unpacked; its hash is that of the archive."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a source held when it was last looked at.

    Attributes:
        tag: Changes when the source does; empty: the source says nothing of the kind.
        digest: Of the content.
        kind: How it is kept.
        name: Of the file.
    """

    tag: str
    digest: str
    kind: str
    name: str


class OpenSource:
    """A source that nobody else looks at or downloads meanwhile.

    Args:
        file: Open and locked.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def last(self) -> Source | None:
        """Gives what it held; None: it is not known."""
        self._file.seek(0)
        try:
            return Source(**json.loads(self._file.read()))
        except (ValueError, TypeError):  # new, or half written when the machine went down
            return None

    def remember(self, source: Source) -> None:
        """Keeps what it holds."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(asdict(source)))
        self._file.flush()


class ModelCache:
    """The folder of downloaded models.

    Args:
        folder: Made when it is first used.
        max_bytes: Of all content; beyond it, what was used longest ago goes.
        max_age_seconds: How long content stays that nobody uses.
    """

    def __init__(self, folder: Path, max_bytes: int, max_age_seconds: float) -> None:
        self._folder = folder
        self._content = folder / "content"
        self._sources = folder / "sources"
        self._scratch = folder / "scratch"
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds

    @contextlib.contextmanager
    def source(self, uri: str) -> Iterator[OpenSource]:
        """Opens a source; waits while another thread or process has it open."""
        self._make()
        path = self._sources / hashlib.sha256(uri.encode()).hexdigest()
        with _locked(path, fcntl.LOCK_EX) as file:
            os.utime(path)
            yield OpenSource(file)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Gives an empty folder on the same file system, which is gone on leaving."""
        self._make()
        with tempfile.TemporaryDirectory(dir=self._scratch, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def using(self, digest: str, kind: Kind, name: str = "") -> Iterator[Path | None]:
        """Gives content, which stays until it is left; None: there is none of the hash.

        Args:
            digest: Of the content.
            kind: How it is kept.
            name: Of a file: it is given under this name, since names say what format a file has.
        """
        self._make()
        folder = self._content / f"{digest}.{kind.value}"
        if not folder.is_dir():
            yield None
            return
        with _locked(self._entry(folder), fcntl.LOCK_SH):
            if not folder.is_dir():  # it was removed just now
                yield None
                return
            os.utime(self._entry(folder))
            yield _named(folder, name) if kind is Kind.FILE else folder

    def put(self, made: Path, digest: str, kind: Kind) -> None:
        """Keeps a folder that was filled in the scratch folder; if it is there already, nothing changes.

        Args:
            made: The folder; of a file: the folder with that file alone.
            digest: Of the content.
            kind: How it is kept.
        """
        folder = self._content / f"{digest}.{kind.value}"
        with contextlib.suppress(FileExistsError, OSError):  # not empty: somebody else was quicker
            made.rename(folder)
        self.prune(keep=folder.name)

    def prune(self, keep: str = "") -> None:
        """Removes what nobody has used for long, and what is too much; what is in use stays.

        Args:
            keep: Name of content that stays.
        """
        now = time.time()
        entries = sorted(((self._used(folder), folder) for folder in self._folders()), reverse=True)
        total = 0
        for used, folder in entries:
            total += _size(folder)
            if folder.name != keep and (total > self._max_bytes or now - used > self._max_age_seconds):
                self._remove(folder)
        for path in self._sources.iterdir():
            if now - _age_of(path, now) > self._max_age_seconds:
                _remove_unlocked(path)
        for path in self._scratch.iterdir():  # of processes that were killed
            if now - _age_of(path, now) > _SCRATCH_SECONDS:
                remove_tree(path)

    def _make(self) -> None:
        for folder in (self._folder, self._content, self._sources, self._scratch):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _folders(self) -> list[Path]:
        return [path for path in self._content.iterdir() if path.is_dir()]

    def _entry(self, folder: Path) -> Path:
        return folder.with_name(f"{folder.name}.entry")

    def _used(self, folder: Path) -> float:
        entry = self._entry(folder)
        return _age_of(entry if entry.exists() else folder, 0.0)

    def _remove(self, folder: Path) -> None:
        entry = self._entry(folder)
        with contextlib.suppress(BlockingIOError), _locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB):
            with tempfile.TemporaryDirectory(dir=self._scratch, ignore_cleanup_errors=True) as scratch:
                folder.rename(Path(scratch) / "removed")  # at once: nobody sees half of it
            entry.unlink()


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[IO[str]]:
    """Opens a file, made if need be, and locks it; one that was removed while it was waited for is opened anew."""
    while True:
        with path.open("a+") as file:
            fcntl.flock(file, how)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    yield file
                    return


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(BlockingIOError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        path.unlink()


def _named(folder: Path, name: str) -> Path:
    """Gives the one file of a folder under a name of the caller's."""
    path = folder / name
    if not path.exists():
        there = next(file for file in folder.iterdir() if file.is_file())
        with contextlib.suppress(FileExistsError):
            os.link(there, path)
    return path


def _size(folder: Path) -> int:
    found: dict[int, int] = {}  # a file that has several names counts once
    for inner, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(inner, name))
                found[status.st_ino] = status.st_size
    return sum(found.values())


def _age_of(path: Path, missing: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return missing
