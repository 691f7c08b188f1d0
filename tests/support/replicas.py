"""A Backend for tests: replicas that are only counted, with faults to order."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from mlmesh_kit.errors import ResourceExhausted, ServiceError, Unavailable
from mlmesh_serving.backend import Door, WireAnswer, WireRequest

Future = asyncio.Future[WireAnswer]


def request(body: bytes = b"?", deadline: float | None = None) -> WireRequest:
    return WireRequest(Door.GRPC, "m", body, deadline=deadline)


def answer_to(body: bytes) -> WireAnswer:
    return WireAnswer(b"answer to " + body)


@dataclass(eq=False)
class Replica:
    running: dict[Future, WireRequest] = field(default_factory=dict)


@dataclass
class Replicas:
    """Each request goes to the replica with the fewest; one that takes `parallel` at once keeps the others waiting.

    Attributes:
        start_seconds: Until a replica is ready.
        answer_seconds: For each request; None: until `finish`.
        parallel: Requests that a replica computes at once; 0: any number.
        limit: Most requests in flight in all; 0: none.
        broken: What starting a replica ends with.
        failing: What each request ends with.
        asked: The numbers that `scale` was called with.
        most: Requests in flight in one replica, at most, ever.
        served: Requests taken, in their order.
        given_up: Requests whose futures were cancelled.
    """

    start_seconds: float = 0.0
    answer_seconds: float | None = 0.0
    parallel: int = 0
    limit: int = 0
    broken: ServiceError | None = None
    failing: ServiceError | None = None
    asked: list[int] = field(default_factory=list)
    most: int = 0
    served: list[WireRequest] = field(default_factory=list)
    given_up: list[WireRequest] = field(default_factory=list)
    closed: bool = False
    replicas: list[Replica] = field(default_factory=list)
    leaving: list[Replica] = field(default_factory=list)
    backlog: deque[tuple[Future, WireRequest]] = field(default_factory=deque)
    peak: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _count: int = 0

    @property
    def in_flight(self) -> int:
        return self._count

    @property
    def ready(self) -> int:
        return len(self.replicas)

    @property
    def processes(self) -> int:
        return len(self.replicas) + len(self.leaving)

    def submit(self, request: WireRequest) -> Future:
        if not self.replicas:
            raise Unavailable("no replica answers")
        if 0 < self.limit <= self._count:
            raise ResourceExhausted("too many requests")
        future: Future = asyncio.get_running_loop().create_future()
        self._count += 1
        self.served.append(request)
        future.add_done_callback(lambda done: self._ended(done, request))
        self.backlog.append((future, request))
        self._place()
        return future

    async def scale(self, replicas: int) -> None:
        self.asked.append(replicas)
        if replicas > len(self.replicas):
            await asyncio.sleep(self.start_seconds)
            if self.broken is not None:
                raise self.broken
            while len(self.replicas) < replicas:
                self.replicas.append(Replica())
            self.peak = max(self.peak, self.processes)
            self._place()
            return
        gone = [self.replicas.pop() for _ in range(len(self.replicas) - replicas)]
        self.leaving += gone
        for replica in gone:
            while replica.running or (not self.replicas and self.backlog):
                self.changed.clear()
                await self.changed.wait()
            self.leaving.remove(replica)

    async def close(self, grace_seconds: float) -> None:
        self.closed = True
        self.replicas.clear()

    def crash(self) -> None:
        """Takes the last replica away, with what it has."""
        for future in list(self.replicas.pop().running):
            if not future.done():
                future.set_exception(Unavailable("the worker died"))

    def finish(self, future: Future) -> None:
        if future.done():
            return
        for replica in [*self.replicas, *self.leaving]:
            if future in replica.running:
                if self.failing is not None:
                    future.set_exception(self.failing)
                else:
                    future.set_result(answer_to(replica.running[future].body))

    def finish_all(self) -> None:
        for replica in [*self.replicas, *self.leaving]:
            for future in list(replica.running):
                self.finish(future)

    def _place(self) -> None:
        while self.backlog and self.replicas:
            replica = min(self.replicas, key=lambda one: len(one.running))
            if self.parallel and len(replica.running) >= self.parallel:
                return
            future, request = self.backlog.popleft()
            if future.done():
                continue
            replica.running[future] = request
            self.most = max(self.most, len(replica.running))
            if self.answer_seconds is not None:
                asyncio.get_running_loop().call_later(self.answer_seconds, self.finish, future)

    def _ended(self, future: Future, request: WireRequest) -> None:
        self._count -= 1
        if future.cancelled():
            self.given_up.append(request)
        for replica in [*self.replicas, *self.leaving]:
            replica.running.pop(future, None)
        self._place()
        self.changed.set()
