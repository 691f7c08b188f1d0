"""Removing folders that others have filled: however deep, whatever their modes, never following a link."""

import contextlib
import os
import uuid
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Takes a folder away; what cannot be removed stays, and a folder that is not there is none. Blocks.

    `shutil.rmtree` recurses, and ends in RecursionError a thousand folders down. Here a folder's own folders are moved
    up before it is removed, so that none is ever deep.

    Args:
        path: The folder. A link is left alone.
    """
    try:
        top = os.open(path, _FOLDER)
    except OSError:
        return
    try:
        while _remove_level(top):
            pass
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _remove_level(top: int) -> bool:
    """Removes what is in a folder, one level deep; tells whether anything changed for which to look again."""
    changed = False
    for name, is_folder in _entries(top):
        with contextlib.suppress(OSError):
            if is_folder:
                changed |= _remove_folder(top, name)
            else:
                os.unlink(name, dir_fd=top)
    return changed


def _remove_folder(top: int, name: str) -> bool:
    """Removes a folder, after moving its folders up beside it; tells whether any was moved."""
    moved = False
    folder = os.open(name, _FOLDER, dir_fd=top) if os.access(name, os.R_OK | os.W_OK | os.X_OK, dir_fd=top) else -1
    if folder < 0:
        os.chmod(name, 0o700, dir_fd=top)
        folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        for inner, is_folder in _entries(folder):
            with contextlib.suppress(OSError):
                if is_folder:
                    os.rename(inner, uuid.uuid4().hex, src_dir_fd=folder, dst_dir_fd=top)
                    moved = True
                else:
                    os.unlink(inner, dir_fd=folder)
    finally:
        os.close(folder)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=top)
    return moved


def _entries(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
