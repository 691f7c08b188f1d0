"""Starts worker processes for all models, forked from helpers that have imported what they need."""

import asyncio
import contextlib
import fcntl
import logging
import mmap
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from mlmesh_kit.errors import FailedPrecondition
from mlmesh_kit.files import remove_tree
from mlmesh_kit.launch import Limits, Process, ProcessSpec, WarmLauncher

from mlmesh_serving.workers import frames
from mlmesh_serving.workers.link import Link
from mlmesh_serving.workers.output import WorkerOutput
from mlmesh_serving.workers.worker import Entry, Worker

logger = logging.getLogger(__name__)

PASSED_ON: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV")
"""Variables of the router's environment that workers get; no others, for there may be secrets in them."""
_THREADS: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_ALWAYS: Final = ("mlmesh_serving.workers.process",)
_OOM_SCORE: Final = 500  # rather a worker than the router
_LONGEST_PATH: Final = 107  # of a unix socket, on Linux
_FOLDER: Final = "workers-"
_LOCK: Final = "lock"


class WorkerHost:
    """Where workers come from; one for all models.

    Args:
        home: The service's folder.
        threads: That numerical libraries use in a worker.
        start_seconds: Longest time until a worker has loaded its model.
    """

    def __init__(self, home: Path, threads: int = 1, start_seconds: float = 120.0) -> None:
        self._home = home
        self._environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._environment |= dict.fromkeys(_THREADS, str(threads))
        self._start_seconds = start_seconds
        self._expected: dict[str, Worker] = {}
        self._launchers: dict[tuple[str, ...], WarmLauncher] = {}
        self._folder = Path()
        self._tickers: set[Callable[[float], None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens for workers; on leaving, what still runs is killed."""
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(_remove_stale, self._home)
        with _private_folder(self._home) as folder:
            self._folder = folder
            server = await loop.create_unix_server(lambda: Link(self._claim), str(folder / "s"))
            ticking = asyncio.create_task(self._tick(), name="workers")
            try:
                yield
            finally:
                ticking.cancel()
                server.close()
                for launcher in self._launchers.values():
                    await launcher.close()

    async def warm_up(self, modules: Sequence[str]) -> None:
        """Starts the helper that has these modules, ahead of the first worker."""
        await self._launcher(modules).warm_up()

    async def start(
        self,
        model: str,
        plan: bytes,
        modules: Sequence[str],
        env: Mapping[str, str],
        answered: Callable[[Entry], None],
        lost: Callable[[Worker], None],
    ) -> Worker:
        """Starts a worker and waits until it has loaded its model.

        Args:
            model: For logs.
            plan: What it loads, serialized.
            modules: That the helper it is forked from has imported.
            env: Variables beside those that all workers have; what libraries read on import has been read.
            answered: See `Worker`.
            lost: See `Worker`.

        Raises:
            ServiceError: It could not be loaded, or not in time.
        """
        token = secrets.token_hex(frames.TOKEN_BYTES // 2)
        mark, log = self._folder / f"{token}.mark", self._folder / f"{token}.log"
        worker = Worker(plan, _make_mark(mark), answered, lost, asyncio.get_running_loop())
        self._expected[token] = worker
        try:
            worker.process = await self._fork(model, modules, env, token, mark, log)
            watching = asyncio.create_task(_watch(worker, worker.process), name="worker")
            watching.add_done_callback(_done)
            async with asyncio.timeout(self._start_seconds):
                await asyncio.shield(worker.loaded)
        except TimeoutError as error:
            worker.kill("did not load the model in time")
            await worker.retire(1)
            raise FailedPrecondition(f"the model was not loaded within {self._start_seconds:g} s") from error
        except BaseException:
            worker.kill("was not wanted any more")
            raise
        finally:
            self._expected.pop(token, None)
            mark.unlink(missing_ok=True)
            log.unlink(missing_ok=True)
        return worker

    def every_second(self, function: Callable[[float], None]) -> Callable[[], None]:
        """Calls a function with the loop's time every second; gives what ends that."""
        self._tickers.add(function)
        return lambda: self._tickers.discard(function)

    async def _fork(
        self, model: str, modules: Sequence[str], env: Mapping[str, str], token: str, mark: Path, log: Path
    ) -> Process:
        loop = asyncio.get_running_loop()
        os.mkfifo(log, 0o600)
        reader = os.fdopen(os.open(log, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        try:
            process = await self._launcher(modules).start(
                ProcessSpec(
                    argv=[
                        sys.executable,
                        "-m",
                        "mlmesh_serving.workers.main",
                        str(self._folder / "s"),
                        str(mark),
                        token,
                    ],
                    cwd=self._folder,
                    env={**self._environment, **env},
                    log_path=log,
                    limits=Limits(oom_score=_OOM_SCORE),
                    name=model,
                )
            )
        except BaseException:
            reader.close()
            raise
        await loop.connect_read_pipe(lambda: WorkerOutput(model, loop), reader)
        return process

    def _launcher(self, modules: Sequence[str]) -> WarmLauncher:
        wanted = (*_ALWAYS, *modules)
        if wanted not in self._launchers:
            self._launchers[wanted] = WarmLauncher(wanted, env=self._environment)
        return self._launchers[wanted]

    def _claim(self, token: str) -> Worker | None:
        return self._expected.pop(token, None)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1)
            for function in list(self._tickers):
                try:
                    function(loop.time())
                except Exception:
                    logger.exception("looking after workers failed")


async def _watch(worker: Worker, process: Process) -> None:
    worker.ended(await process.wait())


def _done(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("watching a worker failed", exc_info=task.exception())


def _make_mark(path: Path) -> mmap.mmap:
    with path.open("xb+") as file:
        file.truncate(frames.MARK.size)
        return mmap.mmap(file.fileno(), frames.MARK.size)


@contextlib.contextmanager
def _private_folder(home: Path) -> Iterator[Path]:
    """Makes a folder that only this user may enter, and locks it for as long as it is used.

    It lies in the service's own, or, where a socket's path would be too long, elsewhere.
    """
    fits = len(os.fsencode(home)) + len(f"/{_FOLDER}12345678/s") <= _LONGEST_PATH
    with (
        tempfile.TemporaryDirectory(prefix=_FOLDER, dir=home if fits else None) as folder,  # mode 0700
        (Path(folder) / _LOCK).open("x") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder)


def _remove_stale(home: Path) -> None:
    """Removes the folders of routers that were killed."""
    for folder in home.glob(f"{_FOLDER}*"):
        with contextlib.suppress(OSError), (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(folder)
