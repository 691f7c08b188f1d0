"""Inputs that were fetched from an object store, kept on this machine for the next task that wants them.

An entry is a folder `KEY` with `content` (a file or a folder) and `about.json`. A lock file beside it is held shared
while the entry is given out, and exclusively while it is made or removed; the kernel frees it when its holder dies.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from mlmesh_kit.files import remove_tree

logger = logging.getLogger(__name__)

_CONTENT, _ABOUT, _LOCK, _PART = "content", "about.json", ".lock", ".part"
_FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file until one of them is written to


class InputCache:
    """Fetched inputs by key. Its methods block: call them from a thread.

    Args:
        root: Holds them; on the file system of the attempts' folders, so that files can be linked.
        max_bytes: Room; what was used least recently goes first.
        max_age_seconds: Time after which what is not used goes.
    """

    def __init__(self, root: Path, max_bytes: int, max_age_seconds: float) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._max_age = max_age_seconds
        self._can_clone = True

    def place(self, key: str, target: Path) -> bool:
        """Puts what is kept under a key at a path, so that its task cannot change it for others.

        Where the file system can share blocks, or the service runs as root (to whom read-only means nothing), the
        task gets its own copy; else a hard link that is read-only.

        Returns:
            False: There is nothing, it is just being made or removed, or somebody has changed it.
        """
        with self._lock(key, fcntl.LOCK_SH) as held:
            if not held or not (entry := self._root / key).is_dir():
                return False
            if not _is_unchanged(entry):
                logger.warning("the input %s in the cache was changed by a task; it is fetched again", key)
                (entry / _ABOUT).unlink(missing_ok=True)
                return False
            os.utime(entry)
            self._copy(entry / _CONTENT, target)
            return True

    @contextlib.contextmanager
    def making(self, key: str) -> Iterator[Path | None]:
        """Gives the path at which to make a file or folder, that is kept when it has been left without an exception.

        None: it is there already, or somebody else is making it.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock(key, fcntl.LOCK_EX) as held:
            entry = self._root / key
            if not held or (entry / _ABOUT).exists():
                yield None
                return
            scratch = self._root / f"{key}.{uuid.uuid4().hex[:8]}{_PART}"
            scratch.mkdir(mode=0o700)
            try:
                yield scratch / _CONTENT
                (scratch / _ABOUT).write_text(json.dumps(_protected(scratch / _CONTENT)))
                remove_tree(entry)
                os.replace(scratch, entry)
            finally:
                remove_tree(scratch)

    def clean(self, keep: Collection[str] = ()) -> None:
        """Removes what is too old or too much, and what was being made by a service that died; `keep` stays."""
        if not self._root.is_dir():
            return
        entries = []
        for path in self._root.iterdir():
            key = path.name.split(".")[0]
            with contextlib.suppress(OSError, ValueError):
                if path.suffix == _PART:
                    with self._lock(key, fcntl.LOCK_EX) as held:
                        if held:
                            remove_tree(path)
                elif path.is_dir():
                    used, size = path.stat().st_mtime, _size(path)
                    entries.append((used, size, key))
        total = sum(size for _, size, _ in entries)
        oldest = time.time() - self._max_age
        for used, size, key in sorted(entries):
            if key not in keep and (total > self._max_bytes or used < oldest) and self._remove(key):
                total -= size
        self._remove_locks()

    def _remove(self, key: str) -> bool:
        with self._lock(key, fcntl.LOCK_EX) as held:
            if held:
                remove_tree(self._root / key)
            return held

    def _remove_locks(self) -> None:
        for path in self._root.glob(f"*{_LOCK}"):
            if not path.with_suffix("").exists():
                with self._lock(path.stem, fcntl.LOCK_EX) as held:
                    if held and not path.with_suffix("").exists():
                        path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self, key: str, how: int) -> Iterator[bool]:
        """Takes the lock of a key if it is free; says whether."""
        path = self._root / f"{key}{_LOCK}"
        try:
            file = path.open("w")
        except FileNotFoundError:  # the cache has never been used
            yield False
            return
        with file:
            yield _is_taken(file, path, how)

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_file():
            self._copy_file(source, target)
            return
        target.mkdir(mode=0o700)
        for folder, folders, files in os.walk(source):
            here = target / Path(folder).relative_to(source)
            for name in folders:
                (here / name).mkdir(mode=0o700)
            for name in files:
                self._copy_file(Path(folder) / name, here / name)

    def _copy_file(self, source: Path, target: Path) -> None:
        if self._can_clone:
            with source.open("rb") as before, target.open("wb") as after:
                try:
                    fcntl.ioctl(after, _FICLONE, before.fileno())
                    return
                except OSError:
                    self._can_clone = False
            target.unlink()
        if os.geteuid() != 0:
            with contextlib.suppress(OSError):
                os.link(source, target)
                return
        shutil.copyfile(source, target)


def _is_taken(file: IO[str], path: Path, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        return os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:  # it was removed between its opening and here: whoever comes next makes a new one
        return False


def _protected(content: Path) -> dict[str, list[int]]:
    """Makes the files read-only; gives size and time of each, by name."""
    found = {}
    for path in _files(content):
        path.chmod(0o400)
        about = path.stat()
        found[str(path.relative_to(content))] = [about.st_size, about.st_mtime_ns]
    return found


def _is_unchanged(entry: Path) -> bool:
    content = entry / _CONTENT
    try:
        known = json.loads((entry / _ABOUT).read_text())
        for name, signature in known.items():
            about = (content / name).lstat()
            if [about.st_size, about.st_mtime_ns] != signature:
                return False
    except (OSError, ValueError):
        return False
    return True


def _size(entry: Path) -> int:
    try:
        known = json.loads((entry / _ABOUT).read_text())
    except OSError:
        return 0
    return sum(size for size, _ in known.values())


def _files(content: Path) -> Iterator[Path]:
    if content.is_file():
        yield content
        return
    for folder, _, files in os.walk(content):
        for name in files:
            yield Path(folder) / name
