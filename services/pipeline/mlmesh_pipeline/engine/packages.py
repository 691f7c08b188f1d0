"""What `packages_to_install` asks for: found in this environment, or installed once into another by content hash."""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlmesh_kit.files import remove_tree
from mlmesh_kit.launch import Launcher, Limits, ProcessSpec, mark_of, sweep
from packaging.requirements import InvalidRequirement, Requirement

from mlmesh_pipeline.engine.environments import EnvironmentFolder, content_hash, make_environment

logger = logging.getLogger(__name__)

_PIP_SECONDS = 1800
_CLEAN_SECONDS = 3600
_CREDENTIALS = re.compile(r"//[^/@\s]+@")
# What pip, and git below it, hear of indexes, proxies and certificates.
_PASSED_ON = re.compile(
    r"^(PIP_\w+|(https?|all|no)_proxy|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|SSL_CERT_(FILE|DIR)|XDG_CONFIG_\w+|NETRC|GIT_SSH\w*)$",
    re.IGNORECASE,
)

_ELSEWHERE = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}


class NotInstalled(Exception):
    """The packages could not be had; the message says why."""


@dataclass(frozen=True, slots=True)
class PackageLimits:
    """What installed packages may take of the disk.

    Attributes:
        max_age_seconds: An environment that has not been used for so long goes.
        max_bytes: When all are larger together, those go that have not been used for longest.
    """

    max_age_seconds: float
    max_bytes: int


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


class Packages:
    """Virtual environments over the service's own, one for each set of requirements; replicas share them.

    Args:
        root: Holds them.
        launcher: Starts pip.
        allowed: Whether anything may be installed.
        limits: When they go.
    """

    def __init__(self, root: Path, launcher: Launcher, *, allowed: bool, limits: PackageLimits) -> None:
        self._root = root
        self._launcher = launcher
        self._allowed = allowed
        self._limits = limits
        self._building: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)

    @contextlib.asynccontextmanager
    async def installed(
        self,
        requirements: Sequence[str],
        options: Sequence[str],
        env: Mapping[str, str],
        log_path: Path,
        process_limits: Limits,
    ) -> AsyncIterator[Path]:
        """Gives the folder of a virtual environment with the packages, which stays as long as it is used.

        They are installed if nobody has yet; replicas wait for each other.

        Args:
            requirements: PEP 508, paths or URLs.
            options: Options of pip that go with them.
            env: Environment of pip; what it needs of the service's (`PIP_...`, proxies) is added.
            log_path: Where pip's output goes.
            process_limits: Of pip.

        Raises:
            NotInstalled: They may not be installed, or pip failed.
        """
        if not self._allowed:
            raise NotInstalled(
                f"packages_to_install: {_shown(requirements)} are not in this environment, "
                "and installing is turned off (MLMESH_PIPELINE_INSTALL_PACKAGES)"
            )
        env = {**{name: value for name, value in os.environ.items() if _PASSED_ON.match(name)}, **env}
        env = {name: value for name, value in env.items() if name not in _ELSEWHERE} | {"PIP_USER": "0"}
        settings = {name: value for name, value in env.items() if name.upper().startswith("PIP_")}
        name = await asyncio.to_thread(content_hash, requirements, options, settings)
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = EnvironmentFolder(self._root / name)
        while True:
            async with folder.shared():
                if folder.is_ready():
                    folder.mark_used()
                    yield folder.path
                    return
            async with self._building[folder.path], folder.exclusive():
                if not folder.is_ready():
                    await self._install(folder, requirements, options, env, log_path, process_limits)

    async def keep_clean(self) -> None:
        """Takes away what is too old or too much, now and each hour, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.clean)
            except OSError:
                logger.exception("installed packages could not be cleaned")
            await asyncio.sleep(_CLEAN_SECONDS)

    def clean(self) -> None:
        """Takes away what is too old or too much, and what was never finished; nothing that is in use. Blocks."""
        kept = []
        for folder in self._folders():
            with folder.if_free() as is_free:
                if is_free and (not folder.is_ready() or folder.idle_seconds() > self._limits.max_age_seconds):
                    folder.remove()
                    continue
            kept.append((folder.idle_seconds(), folder.size(), folder))
        total = sum(size for _, size, _ in kept)
        for _, size, folder in sorted(kept, key=lambda item: -item[0]):
            if total <= self._limits.max_bytes:
                return
            with folder.if_free() as is_free:
                if is_free:
                    folder.remove()
                    total -= size

    def _folders(self) -> Iterator[EnvironmentFolder]:
        with contextlib.suppress(FileNotFoundError):
            names = {path.name.removesuffix(".lock") for path in self._root.iterdir()}
            yield from (EnvironmentFolder(self._root / name) for name in sorted(names))

    async def _install(
        self,
        folder: EnvironmentFolder,
        requirements: Sequence[str],
        options: Sequence[str],
        env: Mapping[str, str],
        log_path: Path,
        limits: Limits,
    ) -> None:
        mark = mark_of(str(folder.path))
        if folder.path.exists():  # a service was killed as it built
            await asyncio.to_thread(sweep, None, None, mark)
        try:
            await asyncio.to_thread(make_environment, folder.path, with_pip=importlib.util.find_spec("pip") is None)
            argv = [str(folder.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
            argv += [*options, "--", *requirements]
            spec = ProcessSpec(argv, self._root, env, log_path, _PIP_SECONDS, limits=limits, mark=mark)
            process = await self._launcher.start(spec)
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                await process.terminate(1)
                raise
            if not status.ok:
                raise NotInstalled(f"pip install {_shown(requirements)} {status.describe()}; see the log of the task")
            await asyncio.to_thread(folder.set_ready)
        except OSError as error:
            raise NotInstalled(f"an environment for {_shown(requirements)} cannot be made: {error.strerror}") from error
        finally:
            if not folder.is_ready():
                await asyncio.to_thread(remove_tree, folder.path)


def activate(folder: Path, environment: dict[str, str]) -> str:
    """Puts a virtual environment into the variables of a process, as its `activate` does; gives its interpreter."""
    programs = folder / "bin"
    environment["VIRTUAL_ENV"] = str(folder)
    environment["PATH"] = os.pathsep.join(filter(None, [str(programs), environment.get("PATH", os.defpath)]))
    return str(programs / "python")


def _shown(requirements: Sequence[str]) -> str:
    return ", ".join(_CREDENTIALS.sub("//***@", text) for text in requirements)
