"""What `packages_to_install` asks for: found in the environment, or installed once into a folder by content hash."""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlmesh_kit.launch import Launcher, ProcessSpec
from packaging.requirements import InvalidRequirement, Requirement


class NotInstalled(Exception):
    """The packages could not be had; the message says why."""


def missing(requirements: Sequence[str]) -> list[str]:
    """Gives the requirements that this environment does not satisfy."""
    return [text for text in requirements if not _is_satisfied(text)]


def _is_satisfied(text: str) -> bool:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return False
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    if requirement.url or requirement.extras:
        return False
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


class PackageFolders:
    """Folders with installed packages, one for each set of requirements.

    Args:
        root: Holds them.
        launcher: Starts pip.
        allowed: Whether anything may be installed.
    """

    def __init__(self, root: Path, launcher: Launcher, *, allowed: bool) -> None:
        self._root = root
        self._launcher = launcher
        self._allowed = allowed

    async def ensure(
        self, requirements: Sequence[str], options: Sequence[str], env: Mapping[str, str], log_path: Path
    ) -> Path:
        """Gives a folder with the packages, installing them if nobody has yet; replicas wait for each other.

        Args:
            requirements: PEP 508.
            options: Options of pip that go with them.
            env: Environment of pip.
            log_path: Where pip's output goes.

        Raises:
            NotInstalled: They may not be installed, or pip failed.
        """
        if not self._allowed:
            raise NotInstalled(
                f"packages_to_install: {', '.join(requirements)} are not in this environment, "
                "and installing is turned off (MLMESH_PIPELINE_INSTALL_PACKAGES)"
            )
        content = json.dumps([sorted(requirements), list(options), sys.version, sys.platform])
        folder = self._root / hashlib.sha256(content.encode()).hexdigest()[:32]
        if folder.exists():
            return folder
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = await asyncio.to_thread(_lock, folder.with_suffix(".lock"))
        with contextlib.closing(lock):
            if not folder.exists():
                await self._install(folder, requirements, options, env, log_path)
        return folder

    async def _install(
        self, folder: Path, requirements: Sequence[str], options: Sequence[str], env: Mapping[str, str], log_path: Path
    ) -> None:
        scratch = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
        scratch.mkdir()
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        argv += [*options, "--target", str(scratch), "--", *requirements]
        try:
            process = await self._launcher.start(ProcessSpec(argv, self._root, env, log_path, timeout_seconds=1800))
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                await process.terminate(1)
                raise
            if not status.ok:
                raise NotInstalled(f"pip install {' '.join(requirements)} {status.describe()}; see the log of the task")
            os.replace(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


class _Lock:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def close(self) -> None:
        self._file.close()


def _lock(path: Path) -> _Lock:
    return _Lock(path)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Gives a fresh folder and takes it away afterwards."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True, mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
