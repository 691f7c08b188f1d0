"""The revisions of one model in memory: brings up those that are wanted, switches when they answer, lets others go."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, ServiceError, Unavailable

from mlmesh_serving.backend import Backend
from mlmesh_serving.traffic.plan import RolloutState, plan, remembered, wanted
from mlmesh_serving.traffic.router import Router
from mlmesh_serving.traffic.settings import Traffic
from mlmesh_serving.traffic.split import Shares, Split

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
DRAIN_SECONDS = 60.0


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
        since: When the state began, seconds since the epoch.
    """

    state: RevisionState = RevisionState.RETIRED
    message: str = ""
    since: float = field(default_factory=time.time)

    def enter(self, state: RevisionState, message: str = "") -> None:
        """Changes the state."""
        self.state, self.message, self.since = state, message, time.time()


class Rollout:
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
        load: Callable[[int], Awaitable[Backend]],
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
        self._backends: dict[int, Backend] = {}
        self._statuses: dict[int, RevisionStatus] = {}
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

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
        return max(self._backends, default=0)

    @property
    def is_settled(self) -> bool:
        """Tells whether requests are spread as it was asked for, all revisions that they go to being ready."""
        shares = self._wish()
        if shares.revisions() - self._backends.keys() or self.router.split is None:
            return False
        newest = self.status(self._state.newest).state
        return newest is not RevisionState.LOADING and _same(self.router.split.shares, shares)

    def status(self, revision: int) -> RevisionStatus:
        """Tells how a revision is."""
        return self._statuses.get(revision) or RevisionStatus()

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
            for status in self._statuses.values():
                if status.state is RevisionState.FAILED:
                    status.enter(RevisionState.RETIRED)
        self._settle()

    async def settled(self) -> None:
        """Waits until requests are spread as it was asked for.

        Raises:
            FailedPrecondition: A revision that they should go to cannot be loaded.
        """
        while not self.is_settled:
            for revision in sorted(self._wish().revisions() | {self._state.newest}):
                status = self.status(revision)
                if status.state is RevisionState.FAILED:
                    raise FailedPrecondition(
                        f"revision {revision} of model {self._model!r} could not be loaded: {status.message}"
                    )
            self._changed.clear()
            await self._changed.wait()

    async def close(self, grace_seconds: float) -> None:
        """Lets all revisions go."""
        self.router.stop("it was unloaded")
        for task in self._loading.values():
            task.cancel()
        self._loading.clear()
        backends, self._backends = self._backends, {}
        for revision in backends:
            self._statuses[revision].enter(RevisionState.RETIRED)
        await asyncio.gather(*(_closed(backend, grace_seconds) for backend in backends.values()))
        self._changed.set()

    def _wish(self) -> Shares:
        return plan(self._traffic, self._canary, self._state, self._backends)

    def _settle(self) -> None:
        """Brings memory as near to what is asked for as it can be now."""
        needed = wanted(self._traffic, self._canary, self._state, self._backends)
        for revision in needed:
            if revision not in self._backends and revision not in self._loading:
                self._begin(revision)
        self._switch()
        routed = self.router.split.shares.revisions() if self.router.split else frozenset()
        for revision in [r for r in self._loading if r not in needed]:
            self._loading.pop(revision).cancel()
            self._statuses[revision].enter(RevisionState.RETIRED)
        for revision in [r for r in self._backends if r not in needed and r not in routed]:
            self._retire(revision)
        self._changed.set()

    def _begin(self, revision: int) -> None:
        status = self._statuses.setdefault(revision, RevisionStatus())
        if status.state is RevisionState.FAILED:
            return
        status.enter(RevisionState.LOADING)
        task = asyncio.create_task(self._bring_up(revision, status), name=f"load {self._model} {revision}")
        self._loading[revision] = task

    async def _bring_up(self, revision: int, status: RevisionStatus) -> None:
        started = time.monotonic()
        try:
            backend = await self._patiently(revision, status)
        except ServiceError as error:
            status.enter(RevisionState.FAILED, error.message)
        except Exception:
            logger.exception("loading %s failed", self._model, extra={"revision": revision})
            status.enter(RevisionState.FAILED, "an unexpected error; the service's log has it")
        else:
            self._backends[revision] = backend
            status.enter(RevisionState.READY)
            seconds = round(time.monotonic() - started, 3)
            logger.info("loaded", extra={"model": self._model, "revision": revision, "seconds": seconds})
        self._loading.pop(revision, None)
        self._settle()

    async def _patiently(self, revision: int, status: RevisionStatus) -> Backend:
        """Loads, and again while what it comes from cannot be reached."""
        for seconds in _RETRY_SECONDS:
            try:
                return await self._load(revision)
            except Unavailable as error:
                status.message = error.message
                await asyncio.sleep(seconds)
        return await self._load(revision)

    def _switch(self) -> None:
        shares = self._wish()
        there = shares.revisions() & self._backends.keys()
        current = self.router.split
        # Until all that should answer do, requests go where they went; where they went nowhere, to those that do.
        if self._awaited(shares) and (current is not None or not there):
            if current is None:
                self.router.stop(self._why_not(shares))
            return
        if current is not None and _same(current.shares, shares) and self.router.backends.keys() >= there:
            return
        split = Split(shares, self._model.encode()[:64])
        self.router.switch(split, {revision: self._backends[revision] for revision in there})
        state = remembered(shares, split.buckets, self._state)
        if state != self._state:
            self._state = state
            self._spawn(self._remember(state))

    def _awaited(self, shares: Shares) -> set[int]:
        """Gives the revisions of a split that do not answer yet; one with no share that cannot is not waited for."""
        return {
            revision
            for revision in shares.revisions() - self._backends.keys()
            if revision in shares.percents or self.status(revision).state is not RevisionState.FAILED
        }

    def _why_not(self, shares: Shares) -> str:
        revision = max(shares.percents, key=lambda number: (shares.percents[number], number))
        status = self.status(revision)
        return f"{status.state.value.lower()}{f': {status.message}' if status.message else ''}"

    def _retire(self, revision: int) -> None:
        backend = self._backends.pop(revision)
        self._statuses[revision].enter(RevisionState.RETIRED)
        self._spawn(_closed(backend, self._drain_seconds))

    async def _remember(self, state: RolloutState) -> None:
        try:
            await self._record(state)
        except ServiceError as error:
            # What is not kept is found again after a restart: the same revisions become ready, and the same split.
            logger.warning("the rollout of %s is not kept: %s", self._model, error.message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _closed(backend: Backend, grace_seconds: float) -> None:
    try:
        await backend.close(grace_seconds)
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
