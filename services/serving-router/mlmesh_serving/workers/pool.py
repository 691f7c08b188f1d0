"""A Backend made of worker processes."""

import asyncio
import logging
import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlmesh_kit.errors import ResourceExhausted, Unavailable

from mlmesh_serving.backend import WireAnswer, WireRequest
from mlmesh_serving.workers.host import WorkerHost
from mlmesh_serving.workers.plan import Loaded, Plan
from mlmesh_serving.workers.supervisor import Supervisor
from mlmesh_serving.workers.worker import Entry, Worker, unavailable

logger = logging.getLogger(__name__)

_MOST_TRIES = 3


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What a pool and its workers may take.

    Args:
        requests: In flight, those that wait included.
        body_bytes: Of their bodies together.
        timeout_seconds: That a request without a deadline may take.
        hang_seconds: How much longer than its deadline a request may take before its worker is killed.
        resident_bytes: Memory of a worker, beyond which another takes its place; 0: no limit.
    """

    requests: int = 1024
    body_bytes: int = 512 << 20
    timeout_seconds: float = 300.0
    hang_seconds: float = 10.0
    resident_bytes: int = 0


class WorkerPool:
    """One revision of a model in processes of its own; see `Backend`.

    Each worker has loaded the whole chain. A request goes to the one that has the fewest. When a worker ends, what it
    was at is answered Unavailable, what it had not begun goes to others, and another takes its place; requests wait for
    it if there is no other, and it comes soon.

    Args:
        host: Starts workers.
        plan: What they load.
        modules: That they need, imported in advance.
        limits: What they may take.
        env: Environment variables beside those that all workers have.
        model: Its name, for logs.
    """

    def __init__(
        self,
        host: WorkerHost,
        plan: Plan,
        *,
        modules: Sequence[str] = (),
        limits: PoolLimits | None = None,
        env: Mapping[str, str] | None = None,
        model: str = "",
    ) -> None:
        self.model = model or plan.spec.name
        self.loaded: Loaded | None = None
        self._host = host
        self._plan = pickle.dumps(plan)
        self._modules = tuple(modules)
        self._limits = limits or PoolLimits()
        self._env = dict(env or {})
        self._supervisors: list[Supervisor] = []
        self._workers: list[Worker] = []  # those that take requests
        self._all: set[Worker] = set()
        self._waiting: deque[Entry] = deque()
        self._coming: set[Supervisor] = set()
        self._scaling = asyncio.Lock()
        self._count = 0
        self._bytes = 0
        self._closed = False
        self._forget = host.every_second(self._look_after)

    @property
    def in_flight(self) -> int:
        """See Backend."""
        return self._count

    @property
    def ready(self) -> int:
        """See Backend."""
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that take requests."""
        return [worker.pid for worker in self._workers]

    def submit(self, request: WireRequest) -> "asyncio.Future[WireAnswer]":
        """See Backend."""
        if self._closed or not (self._workers or self._coming):
            raise Unavailable(f"no worker of the model {self.model!r} is ready", retry_after_seconds=1)
        size = len(request.body)
        if self._count >= self._limits.requests or (self._count and self._bytes + size > self._limits.body_bytes):
            raise ResourceExhausted(f"too many requests wait for the model {self.model!r}", retry_after_seconds=1)
        entry = Entry(request, asyncio.get_running_loop().create_future())
        self._count += 1
        self._bytes += size
        self._hand_over(entry)
        return entry.future

    async def scale(self, replicas: int) -> None:
        """See Backend.

        Raises:
            FailedPrecondition, InvalidArgument, Unavailable: The model cannot be loaded; what was there stays.
        """
        async with self._scaling:
            missing = replicas - len(self._supervisors)
            if missing > 0 and not self._closed:
                found = await asyncio.gather(*(self.spawn() for _ in range(missing)), return_exceptions=True)
                self._supervisors += [Supervisor(self, worker) for worker in found if isinstance(worker, Worker)]
                for error in found:
                    if isinstance(error, BaseException):
                        raise error
            elif missing < 0:
                leaving = sorted(self._supervisors, key=_use)[:-missing]
                self._supervisors = [one for one in self._supervisors if one not in leaving]
                await asyncio.gather(*(one.stop(self._limits.timeout_seconds) for one in leaving))

    async def close(self, grace_seconds: float) -> None:
        """See Backend."""
        self._closed = True
        async with self._scaling:
            leaving, self._supervisors = self._supervisors, []
            await asyncio.gather(*(one.stop(grace_seconds) for one in leaving))
        self._forget()
        for worker in list(self._all):  # those that were being retired
            worker.kill("had no more time")
        self._refuse_waiting()

    # For the supervisors.

    async def spawn(self) -> Worker:
        """See Group."""
        worker = await self._host.start(self.model, self._plan, self._modules, self._env, self._answered, self._lost)
        self.loaded = worker.loaded.result()
        return worker

    def join(self, worker: Worker) -> None:
        """See Group."""
        if worker.gone:
            return
        self._workers.append(worker)
        self._all.add(worker)
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            self._hand_over(entry)

    def leave(self, worker: Worker) -> None:
        """See Group."""
        if worker in self._workers:
            self._workers.remove(worker)

    def expects(self, supervisor: Supervisor, *, soon: bool) -> None:
        """See Group."""
        if soon:
            self._coming.add(supervisor)
        else:
            self._coming.discard(supervisor)
            if not self._coming and not self._workers:
                self._refuse_waiting()

    # From the workers.

    def _answered(self, entry: Entry) -> None:
        self._count -= 1
        self._bytes -= len(entry.request.body)

    def _lost(self, worker: Worker) -> None:
        self._coming.update(one for one in self._supervisors if one.worker is worker)
        self.leave(worker)
        self._all.discard(worker)
        begun, untouched = worker.split()
        for entry in begun:
            self._fail(entry, unavailable(worker.killed_for or "ended"))
        for entry in untouched:
            if entry.tries >= _MOST_TRIES:
                self._fail(entry, unavailable("ended again"))
            else:
                self._hand_over(entry)

    def _hand_over(self, entry: Entry) -> None:
        if entry.future.done():  # its client has gone
            self._answered(entry)
            return
        workers = self._workers
        if not workers:
            self._waiting.append(entry)
        elif len(workers) == 1:
            workers[0].submit(entry)
        else:
            min(workers, key=_load).submit(entry)

    def _fail(self, entry: Entry, error: Exception) -> None:
        self._answered(entry)
        if not entry.future.done():
            entry.future.set_exception(error)

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            self._fail(entry, Unavailable(f"no worker of the model {self.model!r} is ready", retry_after_seconds=1))

    def _look_after(self, now: float) -> None:
        for worker in list(self._all):
            if worker.overdue(now, self._limits.timeout_seconds, self._limits.hang_seconds):
                worker.kill("took too long and was stopped")
            elif 0 < self._limits.resident_bytes < worker.resident_bytes():
                worker.outgrow()


def _load(worker: Worker) -> int:
    return len(worker.pending)


def _use(supervisor: Supervisor) -> int:
    """Orders those that are to go first: who has no worker, then who has the least to do."""
    return -1 if supervisor.worker is None else len(supervisor.worker.pending)
