"""The folder that an attempt works in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from mlmesh_kit.files import remove_tree


@contextlib.asynccontextmanager
async def scratch_folder(path: Path) -> AsyncIterator[Path]:
    """Gives a fresh folder and takes it away afterwards, in a thread: nobody knows how much is in it by then."""
    if not _made(path):
        await asyncio.to_thread(remove_tree, path)
        _made(path)
    try:
        yield path
    finally:
        await asyncio.shield(asyncio.to_thread(remove_tree, path))


def _made(path: Path) -> bool:
    try:
        path.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        return False
    return True
