"""Gives runs to drivers: claims them by leases, renews, hears of new runs and of wishes to terminate."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from mlmesh_kit.errors import ServiceError
from mlmesh_kit.lease import LeaseStore

from mlmesh_pipeline.config import Settings
from mlmesh_pipeline.engine.capacity import Capacity
from mlmesh_pipeline.engine.driver import Driver, Stores
from mlmesh_pipeline.engine.worker import Worker
from mlmesh_pipeline.resources import Run
from mlmesh_pipeline.store.fence import Fence, LostLease
from mlmesh_pipeline.store.owner import new_owner

logger = logging.getLogger(__name__)
_PREFIX = "run/"


class RunDriver(Protocol):
    """Drives one run, on some backend; see `Driver`."""

    run: Run

    def cancel(self) -> None:
        """Ends the run, CANCELED."""

    async def drive(self) -> None:
        """Drives the run to its end."""


MakeDriver = Callable[[Run, Fence, ThreadPoolExecutor], RunDriver]


class Scheduler:
    """Drives the runs of the database that nobody else drives.

    New runs and wishes to terminate that come to this process are acted on at once (`wake`); those that came to
    another, and runs whose service died, are found within `scan_seconds` and `lease_seconds`.

    Args:
        settings: Of the service.
        stores: The database.
        leases: One for each run that is driven.
        ended: Called when a run is no longer driven here.
        make_driver: Makes the driver of a run; None: one that runs it here, as processes.
    """

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        leases: LeaseStore,
        ended: Callable[[], None] = lambda: None,
        make_driver: MakeDriver | None = None,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._leases = leases
        self._ended = ended
        self._make_driver = make_driver
        self._owner = new_owner()
        self._drivers: dict[str, tuple[RunDriver, asyncio.Task[None]]] = {}
        self._awake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False

    def wake(self) -> None:
        """Says that there is something to look at; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._awake.set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs until left; then ends all processes and gives the runs up, to be driven on by the next service."""
        self._loop = asyncio.get_running_loop()
        capacity = Capacity(self._settings.parallel_tasks, self._settings.machine)
        with ThreadPoolExecutor(2, thread_name_prefix="engine") as database:
            async with Worker(self._settings) if self._make_driver is None else contextlib.nullcontext() as worker:
                start = partial(self._start, worker, capacity, database)
                tasks = [
                    asyncio.create_task(self._watch(start, database), name="scheduler"),
                    asyncio.create_task(self._renew(database), name="leases"),
                ]
                try:
                    yield
                finally:
                    self._stopping = True
                    for task in (tasks[0], *(driving for _, driving in self._drivers.values())):
                        task.cancel()
                    await asyncio.gather(
                        tasks[0], *(driving for _, driving in self._drivers.values()), return_exceptions=True
                    )
                    tasks[1].cancel()
                    await asyncio.gather(tasks[1], return_exceptions=True)
                    with contextlib.suppress(ServiceError):
                        await self._loop.run_in_executor(database, self._leases.release_all, self._owner)

    async def _watch(self, start: Callable[[Run], None], database: ThreadPoolExecutor) -> None:
        assert self._loop is not None
        while True:
            self._awake.clear()
            try:
                await self._look(start, database)
            except ServiceError as error:
                logger.warning("the database could not be asked for runs: %s", error.message)
            except Exception:
                logger.exception("looking for runs")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.scan_seconds):
                    await self._awake.wait()

    async def _look(self, start: Callable[[Run], None], database: ThreadPoolExecutor) -> None:
        assert self._loop is not None
        run = self._loop.run_in_executor
        for key in await run(database, self._leases.expired, _PREFIX):
            await run(database, self._claim_or_drop, key)
        room = self._settings.max_active_runs - len(self._drivers)
        for run_id in await run(database, self._stores.runs.unattended, max(room, 0)):
            ttl = self._settings.lease_seconds
            if run_id not in self._drivers and await run(
                database, self._leases.claim, _PREFIX + run_id, self._owner, ttl
            ):
                start(await run(database, self._stores.runs.get, run_id))
        if self._drivers:
            for run_id in await run(database, self._stores.runs.canceling, list(self._drivers)):
                driver = self._drivers.get(run_id)
                if driver is not None:
                    driver[0].cancel()

    def _claim_or_drop(self, key: str) -> None:
        """Frees an expired lease, so that its run counts as unattended."""
        if self._leases.claim(key, self._owner, 1) and key.removeprefix(_PREFIX) not in self._drivers:
            self._leases.release(key, self._owner)

    def _start(self, worker: Worker | None, capacity: Capacity, database: ThreadPoolExecutor, run: Run) -> None:
        fence = Fence(_PREFIX + run.run_id, self._owner)
        driver: RunDriver
        if worker is not None:
            driver = Driver(
                run, fence, self._stores, worker=worker, capacity=capacity, database=database, settings=self._settings
            )
        else:
            assert self._make_driver is not None
            driver = self._make_driver(run, fence, database)
        driving = asyncio.create_task(self._drive(driver, database), name=f"driver {run.run_id}")
        self._drivers[run.run_id] = (driver, driving)

    async def _drive(self, driver: RunDriver, database: ThreadPoolExecutor) -> None:
        assert self._loop is not None
        run_id = driver.run.run_id
        try:
            await driver.drive()
        except LostLease:
            logger.warning("the lease on run %s was lost", run_id)
        except Exception:
            logger.exception("driving run %s", run_id)
        finally:
            del self._drivers[run_id]
            if not self._stopping:
                await self._loop.run_in_executor(database, self._leases.release, _PREFIX + run_id, self._owner)
                self._awake.set()
                self._ended()

    async def _renew(self, database: ThreadPoolExecutor) -> None:
        """Renews the leases; a driver whose lease is gone, or could not be renewed in time, stops."""
        assert self._loop is not None
        renewed = self._loop.time()
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 4)
            keys = [_PREFIX + run_id for run_id in self._drivers]
            asked = self._loop.time()  # the leases may begin anew at once, and the answer come late
            try:
                held = await self._loop.run_in_executor(
                    database, self._leases.renew, keys, self._owner, self._settings.lease_seconds
                )
                renewed = asked
            except Exception:
                logger.exception("leases could not be renewed")
                if self._loop.time() - renewed < self._settings.lease_seconds:
                    continue
                held = set()
            for key in set(keys) - held:
                driver = self._drivers.get(key.removeprefix(_PREFIX))
                if driver is not None:
                    driver[1].cancel()
