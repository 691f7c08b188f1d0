"""Files that a trial writes, opened so that nothing outside its folder is ever read."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mlmesh_katib.collectors.base import CollectionError

MAX_PATH = 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not waiting for a writer of a pipe, not becoming the terminal's process group.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def inner_path(path: str) -> PurePosixPath:
    """Maps a path of a manifest into a trial's folder: /var/log/katib/metrics.log is var/log/katib/metrics.log there.

    Raises:
        ValueError: It leads out, or is none.
    """
    if len(path) > MAX_PATH or not path.isprintable():
        raise ValueError(f"must be a path of at most {MAX_PATH} printable characters")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise ValueError("must be a path without ..")
    return PurePosixPath(*parts)


@contextlib.contextmanager
def open_folder(root: Path, inner: PurePosixPath) -> Iterator[int | None]:
    """Opens a folder below another, following no symbolic link below `root`.

    Gives:
        Its descriptor; None: there is no such folder.

    Raises:
        CollectionError: It cannot be opened, or something on the way is no folder.
    """
    folder: int | None = None
    try:
        try:
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for part in inner.parts:
                outer, folder = folder, os.open(part, _DIRECTORY, dir_fd=folder)
                os.close(outer)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise CollectionError(f"{inner} cannot be read: {error.strerror}; links are not followed") from error
        yield folder
    finally:
        if folder is not None:
            os.close(folder)


def open_file(folder: int, name: str) -> int:
    """Opens a plain file for reading.

    Args:
        folder: Descriptor of its folder.
        name: In it.

    Raises:
        FileNotFoundError: There is none.
        CollectionError: It cannot be opened or is no plain file.
    """
    try:
        # Looked at before it is opened, since opening a device may do something.
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise CollectionError(f"{name} is not a plain file (links are not followed)")
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CollectionError(f"{name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CollectionError(f"{name} is not a plain file")
    return descriptor
