"""The revisions of one model in memory: brings up those that are wanted, switches when they answer, lets others go."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from mlmesh_kit.errors import FailedPrecondition, ServiceError, Unavailable

from mlmesh_serving.backend import Backend
from mlmesh_serving.traffic.plan import RolloutState, plan, remembered, wanted
from mlmesh_serving.traffic.router import Router
from mlmesh_serving.traffic.settings import Traffic
from mlmesh_serving.traffic.split import Shares, Split

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
DRAIN_SECONDS = 60.0


class NotYetError(Unavailable):
    """What a revision needs is not there now, and will be some time: loading goes on until it is."""


class RevisionState(Enum):
    """Of a revision."""

    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"
    RETIRED = "RETIRED"
    """No request goes to it, and it is not loaded."""


@dataclass(slots=True)
class RevisionStatus:
    """How a revision is.

    Attributes:
        state: Now.
        message: Why it failed, or what it waits for.
        since: When the state began, seconds since the epoch; 0: it was never loaded.
    """

    state: RevisionState = RevisionState.RETIRED
    message: str = ""
    since: float = field(default_factory=time.time)

    def enter(self, state: RevisionState, message: str = "") -> None:
        """Changes the state."""
        self.state, self.message, self.since = state, message, time.time()


class LoadedRevision(Protocol):
    """A revision that was brought up."""

    @property
    def backend(self) -> Backend:
        """Answers for it."""

    async def close(self, grace_seconds: float) -> None:
        """Answers what is in flight, and ends."""


R = TypeVar("R", bound=LoadedRevision)


class Rollout(Generic[R]):
    """Follows what is asked for, without failing a request on the way. Lives on one event loop.

    Args:
        model: Its name.
        state: What was remembered.
        load: Brings up a revision until it answers; raises a ServiceError if it cannot, `Unavailable` if it may later.
        record: Keeps what has to be remembered.
        drain_seconds: What a revision that is let go of gets for the requests that it has.
    """

    def __init__(
        self,
        model: str,
        state: RolloutState,
        load: Callable[[int], Awaitable[R]],
        record: Callable[[RolloutState], Awaitable[None]],
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self.router = Router(model)
        self._model = model
        self._load = load
        self._record = record
        self._drain_seconds = drain_seconds
        self._traffic = Traffic()
        self._canary: int | None = None
        self._state = state
        self._held: dict[int, R] = {}
        self._statuses: dict[int, RevisionStatus] = {}
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._recording: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self.since = time.time()
        """When requests were last spread anew, seconds since the epoch."""

    @property
    def state(self) -> RolloutState:
        """What is remembered."""
        return self._state

    @property
    def shares(self) -> Shares | None:
        """How requests are spread now; None: nothing answers."""
        return self.router.split.shares if self.router.split else None

    @property
    def latest_ready(self) -> int:
        """The newest revision that answers; 0: none does."""
        return max(self._held, default=0)

    @property
    def leading(self) -> int:
        """The revision with the greatest share of those that answer; 0: none does."""
        shares = self.shares
        there = (
            [(percent, number) for number, percent in shares.percents.items() if number in self._held] if shares else []
        )
        return max(there, default=(0, 0))[1]

    @property
    def held(self) -> Mapping[int, R]:
        """The revisions in memory, by number."""
        return self._held

    def resolve(self, version: str = "") -> R:
        """Gives a revision that can be asked; see `Router.resolve`.

        Raises:
            NotFound, Unavailable: See there.
        """
        return self._held[self.router.resolve(version)[0]]

    @property
    def is_settled(self) -> bool:
        """Tells whether requests are spread as it was asked for, all revisions that they go to being ready."""
        shares = self._wish()
        if shares.revisions() - self._held.keys() or self.router.split is None:
            return False
        newest = self.status(self._state.newest).state
        return newest is not RevisionState.LOADING and _same(self.router.split.shares, shares)

    def status(self, revision: int) -> RevisionStatus:
        """Tells how a revision is."""
        return self._statuses.get(revision) or RevisionStatus(since=0)

    def broken(self) -> int | None:
        """Gives a revision that requests should go to, and that cannot be loaded; None: there is none."""
        for revision in sorted(self._wish().revisions()):
            if self.status(revision).state is RevisionState.FAILED:
                return revision
        return None

    def apply(self, newest: int, traffic: Traffic, canary: int | None, *, again: bool = False) -> None:
        """Takes what is asked for; see `plan`. Returns at once; `settled` waits.

        Args:
            newest: The revision that was made last.
            traffic: What the operator has said.
            canary: canaryTrafficPercent of the manifest.
            again: Load anew what failed.
        """
        self._traffic, self._canary, self._state = traffic, canary, replace(self._state, newest=newest)
        if again:
            for revision, status in self._statuses.items():
                if status.state is RevisionState.FAILED:
                    status.enter(RevisionState.READY if revision in self._held else RevisionState.RETIRED)
        self._settle()

    def reload(self, revision: int) -> None:
        """Loads a revision anew that is in memory; the one that is there answers until then."""
        if revision in self._held and revision not in self._loading:
            self._statuses[revision].enter(RevisionState.LOADING)
            self._start(revision)

    async def settled(self) -> None:
        """Waits until requests are spread as it was asked for, and that is recorded.

        Raises:
            FailedPrecondition: A revision that they should go to cannot be loaded, or all were let go.
        """
        while not self.is_settled:
            if self._closed:
                raise FailedPrecondition(f"model {self._model!r} was unloaded meanwhile")
            broken = self.broken()
            if broken is not None:
                raise FailedPrecondition(
                    f"revision {broken} of model {self._model!r} could not be loaded: {self.status(broken).message}"
                )
            self._changed.clear()
            await self._changed.wait()
        if self._recording is not None:
            await asyncio.wait([self._recording])

    async def close(self, grace_seconds: float) -> None:
        """Lets all revisions go."""
        self._closed = True
        self.router.stop("it was unloaded")
        for revision in list(self._loading):
            self._give_up(revision)
        held, self._held = self._held, {}
        for revision in held:
            self._statuses[revision].enter(RevisionState.RETIRED)
        self._changed.set()
        await asyncio.gather(*(_closed(revision, grace_seconds) for revision in held.values()))
        # Loads that were given up may have to end processes; retired revisions have their grace.
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _wish(self) -> Shares:
        return plan(self._traffic, self._canary, self._state, self._held)

    def _settle(self) -> None:
        """Brings memory as near to what is asked for as it can be now."""
        needed = wanted(self._traffic, self._canary, self._state, self._held)
        for revision in needed:
            if revision not in self._held and revision not in self._loading:
                self._begin(revision)
        self._switch()
        routed = self.router.split.shares.revisions() if self.router.split else frozenset()
        for revision in [r for r in self._loading if r not in needed]:
            self._give_up(revision)
        for revision in [r for r in self._held if r not in needed and r not in routed]:
            self._retire(revision)
        self._changed.set()

    def _begin(self, revision: int) -> None:
        status = self._statuses.setdefault(revision, RevisionStatus())
        if status.state is RevisionState.FAILED:
            return
        status.enter(RevisionState.LOADING)
        self._start(revision)

    def _start(self, revision: int) -> None:
        load = self._bring_up(revision, self._statuses[revision])
        self._loading[revision] = asyncio.create_task(load, name=f"load {self._model} {revision}")

    async def _bring_up(self, revision: int, status: RevisionStatus) -> None:
        started = time.monotonic()
        earlier: R | None = None
        try:
            loaded = await self._patiently(revision, status)
        except ServiceError as error:
            status.enter(RevisionState.FAILED, error.message)
        except Exception:
            logger.exception("loading %s failed", self._model, extra={"revision": revision})
            status.enter(RevisionState.FAILED, "an unexpected error; the service's log has it")
        else:
            earlier = self._held.get(revision)
            self._held[revision] = loaded
            status.enter(RevisionState.READY)
            seconds = round(time.monotonic() - started, 3)
            logger.info("loaded", extra={"model": self._model, "revision": revision, "seconds": seconds})
        self._loading.pop(revision, None)
        self._settle()
        if earlier is not None:
            self._spawn(_closed(earlier, self._drain_seconds))

    async def _patiently(self, revision: int, status: RevisionStatus) -> R:
        """Loads, and again while what it comes from cannot be reached."""
        attempt = 0
        while True:
            try:
                return await self._load(revision)
            except Unavailable as error:
                if attempt == len(_RETRY_SECONDS) and not isinstance(error, NotYetError):
                    raise
                status.message = error.message
                attempt = min(attempt, len(_RETRY_SECONDS) - 1)
                await asyncio.sleep(_RETRY_SECONDS[attempt])
                attempt += 1

    def _switch(self) -> None:
        shares = self._wish()
        there = {number: self._held[number].backend for number in shares.revisions() & self._held.keys()}
        current = self.router.split
        # Until all that should answer do, requests go where they went; where they went nowhere, to those that do.
        if self._awaited(shares) and (current is not None or not there):
            if current is None:
                self.router.stop(self._why_not(shares))
            return
        if current is not None and _same(current.shares, shares) and self.router.backends == there:
            return
        split = Split(shares, self._model.encode()[:64])
        self.router.switch(split, there)
        self.since = time.time()
        state = remembered(shares, split.buckets, self._state)
        if state != self._state:
            self._state = state
            self._recording = self._spawn(self._remember(state, self._recording))

    def _awaited(self, shares: Shares) -> set[int]:
        """Gives the revisions of a split that do not answer yet; one with no share that cannot is not waited for."""
        return {
            revision
            for revision in shares.revisions() - self._held.keys()
            if revision in shares.percents or self.status(revision).state is not RevisionState.FAILED
        }

    def _why_not(self, shares: Shares) -> str:
        revision = max(shares.percents, key=lambda number: (shares.percents[number], number))
        status = self.status(revision)
        return f"{status.state.value.lower()}{f': {status.message}' if status.message else ''}"

    def _retire(self, revision: int) -> None:
        retired = self._held.pop(revision)
        self._statuses[revision].enter(RevisionState.RETIRED)
        self._spawn(_closed(retired, self._drain_seconds))

    def _give_up(self, revision: int) -> None:
        """Ends a load; what it leaves is cleared away in the background."""
        task = self._loading.pop(revision)
        task.cancel()
        self._keep(task)
        held = revision in self._held
        self._statuses[revision].enter(RevisionState.READY if held else RevisionState.RETIRED)

    async def _remember(self, state: RolloutState, earlier: "asyncio.Task[None] | None") -> None:
        if earlier is not None:
            await asyncio.wait([earlier])
        try:
            await self._record(state)
        except ServiceError as error:
            # What is not kept is found again after a restart: the same revisions become ready, and the same split.
            logger.warning("the rollout of %s is not kept: %s", self._model, error.message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return self._keep(asyncio.create_task(work))

    def _keep(self, task: "asyncio.Task[None]") -> "asyncio.Task[None]":
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _closed(revision: LoadedRevision, grace_seconds: float) -> None:
    try:
        await revision.close(grace_seconds)
    except Exception:
        logger.exception("closing a revision failed")


def _same(one: Shares, other: Shares) -> bool:
    """Tells whether two splits decide alike; buckets follow from the rest."""
    return (one.percents, one.tags, one.rules, one.sticky_header, one.shadow) == (
        other.percents,
        other.tags,
        other.rules,
        other.sticky_header,
        other.shadow,
    )
