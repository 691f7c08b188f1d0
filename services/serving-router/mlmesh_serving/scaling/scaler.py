"""Scales the revisions of this process: takes samples, asks the autoscalers, keeps the machine's bound."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlmesh_kit.errors import ServiceError, Unavailable

from mlmesh_serving.scaling import metrics
from mlmesh_serving.scaling.activity import Activity
from mlmesh_serving.scaling.autoscaler import Autoscaler, Decision
from mlmesh_serving.scaling.meter import RequestMeter
from mlmesh_serving.scaling.share import share
from mlmesh_serving.scaling.spec import AutoscalerSpec

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 60.0
_LINGER_SECONDS = 0.5  # how long a revision that has its turn may be idle between two requests, and keep it
_SOON_SECONDS = 2.0  # how long, at least, those that wait have patience with replicas that were there and have died

RevisionKey = tuple[str, str, int]
"""Namespace, name of the model, number of the revision."""


class Scalable(Protocol):
    """What is scaled: an `Activator`."""

    meter: RequestMeter

    @property
    def ready(self) -> int:
        """Replicas that answer now."""

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""

    async def scale(self, replicas: int) -> None:
        """See `Backend.scale`."""

    async def drain(self, grace_seconds: float) -> None:
        """Takes no more requests, and waits for those that it has."""

    async def close(self, grace_seconds: float) -> None:
        """See `Backend.close`."""


@dataclass(frozen=True, slots=True)
class ScalerSettings:
    """What all revisions share.

    Attributes:
        max_workers: Most replicas on this machine in all.
        tick_seconds: Between two samples.
        turn_seconds: Where more revisions are asked than there may be replicas, each keeps its one at least so long.
    """

    max_workers: int = field(default_factory=lambda: max(4, 2 * (os.cpu_count() or 1)))
    tick_seconds: float = 1.0
    turn_seconds: float = 10.0


@dataclass(slots=True, eq=False)
class Scaled:
    """A revision that is scaled.

    Attributes:
        key: Which one.
        backend: Holds its replicas.
        spec: How it is scaled.
        wanted: Replicas that its demand and its bounds ask for.
        asked: Replicas that its backend was asked for: that there are, or are on their way.
        leaving: Replicas that are to go, and end what they have.
        reachable: Whether traffic is routed to it; without, it goes to zero whatever its `min_replicas`. May be set.
        used: When it was last activated.
        since: When its backend was asked for a first replica, or to let the last one go.
        decision: The autoscaler's last one.
        error: Why replicas could not be brought up; None: they could.
        retry_at: When that is tried again.
        start_seconds: How long it took the last time.
    """

    key: RevisionKey
    backend: Scalable
    spec: AutoscalerSpec
    autoscaler: Autoscaler
    activity: Activity
    wanted: int
    used: float
    asked: int = 0
    leaving: int = 0
    reachable: bool = True
    since: float = 0.0
    decision: Decision | None = None
    error: ServiceError | None = None
    retry_at: float = 0.0
    start_seconds: float = 0.0
    backoff: float = _FIRST_BACKOFF_SECONDS
    change: "asyncio.Task[None] | None" = None
    waiters: "list[asyncio.Future[None]]" = field(default_factory=list)


class Scaler:
    """Scales the revisions that are given to it.

    Every second it takes a sample of each and asks its `Autoscaler` and its `Activity`. Together they get at most
    `max_workers` replicas: where they want more, the least recently used go to zero first, and the rest is shared
    fairly (`share`). A replica that has to go ends what it has before another may come in its place.

    Args:
        settings: What all revisions share.
        clock: Seconds; the event loop's, or one that runs with it.
    """

    def __init__(self, settings: ScalerSettings | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings or ScalerSettings()
        self._clock = clock
        self._revisions: dict[Scaled, None] = {}  # in the order in which they came
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = 0  # replicas of revisions that are being removed

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Scales, until the context is left."""
        task = asyncio.create_task(self._run(), name="scaler")
        try:
            yield
        finally:
            for ended in [task, *self._tasks]:
                ended.cancel()

    def add(self, key: RevisionKey, backend: Scalable, spec: AutoscalerSpec) -> Scaled:
        """Takes a revision on, and asks for its first replicas.

        Args:
            key: Which one. There may be two of one key, while one takes the place of the other.
            backend: Holds its replicas.
            spec: How it is scaled.
        """
        now = self._clock()
        revision = Scaled(
            key=key,
            backend=backend,
            spec=spec,
            autoscaler=Autoscaler(spec, backend.ready, now),
            activity=Activity(spec, now),
            wanted=spec.bounded(spec.scaling.initial_replicas),
            used=now,
            asked=backend.ready,
        )
        self._revisions[revision] = None
        self._apply()
        return revision

    async def remove(self, revision: Scaled, grace_seconds: float) -> None:
        """Lets a revision end what it has, and closes it; when that is done, others may have its place.

        It is scaled until it has nothing left: what waits for its first replica gets it.

        Args:
            revision: From `add`; one that was removed before: nothing happens.
            grace_seconds: For the requests that it has.
        """
        if revision not in self._revisions:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_seconds
        await revision.backend.drain(grace_seconds)
        if revision not in self._revisions:
            return
        del self._revisions[revision]
        _tell(revision, _stopped(revision))
        metrics.forget(revision.key)
        if revision.change is not None:
            revision.change.cancel()
        held = revision.asked + revision.leaving
        self._ending += held
        try:
            await revision.backend.close(max(0.0, end - loop.time()))
        finally:
            self._ending -= held
            self._apply()

    async def activate(self, revision: Scaled) -> None:
        """Brings a replica up where there is none, and waits for it.

        Args:
            revision: From `add`.

        Raises:
            ServiceError: It could not be brought up; or could not a moment ago, and is not tried yet.
            Unavailable: It was removed.
        """
        if revision not in self._revisions:
            raise _stopped(revision)
        now = self._clock()
        if revision.backend.ready:
            return
        if revision.error is not None and now < revision.retry_at:
            raise Unavailable(revision.error.message, retry_after_seconds=revision.retry_at - now)
        revision.activity.activate(now)
        revision.used = now
        revision.wanted = max(revision.wanted, revision.spec.bounded(max(1, revision.spec.scaling.activation_replicas)))
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        revision.waiters.append(waiter)
        if revision.asked and revision.change is None:  # its replicas have died; to ask for them waits for their return
            self._grow(revision, revision.asked)
        self._apply()
        if not revision.asked:  # others have been asked a moment ago: perhaps they are not asked again
            asyncio.get_running_loop().call_later(_LINGER_SECONDS + 0.01, self._apply)
        await waiter

    def tick(self) -> None:
        """Takes a sample of each revision, decides, and asks for what was decided."""
        now = self._clock()
        for revision in self._revisions:
            revision.autoscaler.record(now, revision.backend.meter.take())
            ready = revision.backend.ready
            if ready and revision.waiters:
                _tell(revision, None)
            revision.decision = revision.autoscaler.decide(now, ready, reachable=revision.reachable)
            wished = None if revision.decision is None else revision.decision.replicas
            bounded = revision.activity.bound(now, wished, ready, reachable=revision.reachable)
            if bounded is not None and not (bounded == 0 and revision.waiters):
                revision.wanted = bounded
        self._apply()
        for revision in self._revisions:
            metrics.show(
                revision.key,
                wanted=revision.wanted,
                ready=revision.backend.ready,
                waiting=revision.backend.waiting,
                decision=revision.decision,
            )

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick_seconds)
            try:
                self.tick()
            except Exception:
                logger.exception("scaling failed; it goes on")

    def _apply(self) -> None:
        """Asks for what is wanted, as far as the machine goes: first what is too many, then what is missing."""
        now = self._clock()
        order = sorted(self._revisions, key=lambda revision: self._rank(revision, now))
        shares = share([(revision, revision.wanted) for revision in order], self._settings.max_workers)
        for revision in order:
            if revision.change is None and shares[revision] < revision.asked:
                self._shrink(revision, shares[revision])
        free = self._settings.max_workers - self._ending - sum(one.asked + one.leaving for one in order)
        for revision in order:
            missing = shares[revision] - revision.asked
            if revision.change is None and missing > 0 and free > 0 and now >= revision.retry_at:
                given = min(missing, free)
                free -= given
                self._grow(revision, revision.asked + given)

    def _rank(self, revision: Scaled, now: float) -> tuple[float, int, float]:
        """Gives a revision's place in the order of who deserves a replica most: who was asked last.

        Of those that are being asked, who has a replica keeps it for a turn; then comes who waits for one, longest
        first; then those whose turn is over, longest last.
        """
        meter = revision.backend.meter
        used = max(revision.used, meter.used)
        has_turn = revision.asked > 0 and now - revision.since < self._settings.turn_seconds
        if meter.count or revision.waiters or (has_turn and now - used < _LINGER_SECONDS):
            used = now
        if not revision.asked:
            return -used, 1, revision.since
        return -used, 0 if has_turn else 2, -revision.since

    def _grow(self, revision: Scaled, replicas: int) -> None:
        before, revision.asked = revision.asked, replicas
        if not before:
            revision.since = self._clock()
        revision.change = self._begin(revision, replicas, self._bring_up(revision, replicas, before))

    def _shrink(self, revision: Scaled, replicas: int) -> None:
        leaving, revision.asked = revision.asked - replicas, replicas
        revision.leaving += leaving
        if not replicas:
            revision.since = self._clock()
        self._begin(revision, replicas, self._let_go(revision, replicas, leaving))

    def _begin(self, revision: Scaled, replicas: int, change: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        logger.info("scaling", extra={"model": revision.key[1], "revision": revision.key[2], "replicas": replicas})
        task = asyncio.get_running_loop().create_task(change, name=f"scale {revision.key[1]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _bring_up(self, revision: Scaled, replicas: int, before: int) -> None:
        error: ServiceError | None = None
        begun = self._clock()
        try:
            await revision.backend.scale(replicas)
        except ServiceError as raised:
            error = raised
        except Exception:
            logger.exception("scaling %s to %d failed", revision.key[1], replicas)
            error = Unavailable("an unexpected error; the service's log has it")
        revision.change, revision.error = None, error
        if error is None:
            revision.backoff, revision.retry_at = _FIRST_BACKOFF_SECONDS, 0.0
            if replicas > before:
                revision.start_seconds = self._clock() - begun
        else:
            revision.asked = max(before, revision.backend.ready)  # a backend keeps what was there
            revision.retry_at = self._clock() + revision.backoff
            revision.backoff = min(2 * revision.backoff, _MAX_BACKOFF_SECONDS)
        if revision.backend.ready:
            _tell(revision, None)
        elif error is not None:
            _tell(revision, error)
        else:
            patience = max(_SOON_SECONDS, 2 * revision.start_seconds)
            asyncio.get_running_loop().call_later(patience, _lose_patience, revision, list(revision.waiters))
        self._apply()

    async def _let_go(self, revision: Scaled, replicas: int, leaving: int) -> None:
        try:
            await revision.backend.scale(replicas)
        except Exception:
            logger.exception("scaling %s to %d failed", revision.key[1], replicas)
        finally:
            revision.leaving -= leaving
        self._apply()


def _stopped(revision: Scaled) -> Unavailable:
    return Unavailable(f"model {revision.key[1]!r} is being stopped", retry_after_seconds=1)


def _lose_patience(revision: Scaled, waiters: "list[asyncio.Future[None]]") -> None:
    if not revision.backend.ready:
        text = f"the workers of model {revision.key[1]!r} have ended; others are being started"
        _end(waiters, Unavailable(text, retry_after_seconds=1))
        revision.waiters = [waiter for waiter in revision.waiters if not waiter.done()]


def _tell(revision: Scaled, error: ServiceError | None) -> None:
    """Ends the waiting of those that want a replica."""
    waiters, revision.waiters = revision.waiters, []
    _end(waiters, error)


def _end(waiters: "list[asyncio.Future[None]]", error: ServiceError | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
