"""The access check, answered from memory, and right across replicas.

Every change of profiles or contributors raises a version in the database, in the same transaction. A reviewer reads
that version at most every `freshness_seconds`; when it has moved, all that is remembered is dropped. Without the
database there is no answer (UNAVAILABLE), never an old one.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from mlmesh_kit.access import Decision
from mlmesh_kit.errors import Unavailable

from mlmesh_profile.grants import Grants, decide, decide_administrator
from mlmesh_profile.profile import is_user

logger = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_SECONDS = 1.5
"""Longest wait for the database; less than the two seconds that other services wait for an answer."""


class GrantSource(Protocol):
    """Where grants are kept. Methods block; each gives the version that was current before it read."""

    def version(self) -> int:
        """The version, which every change raises."""
        ...

    def load_grants(self, user: str) -> tuple[int, Grants]:
        """What a user has been granted."""
        ...

    def load_existence(self, name: str) -> tuple[int, bool]:
        """Whether there is such a profile."""
        ...


class GrantReviewer:
    """Answers access reviews; an `AccessReviewer` of the kit.

    Args:
        source: Read in threads.
        administrators: Users who may do everything.
        freshness_seconds: How long the version is believed; 0 reads it at each review.
        max_users: Users remembered; the one remembered longest goes first.
    """

    def __init__(
        self,
        source: GrantSource,
        administrators: Collection[str],
        *,
        freshness_seconds: float = 0.25,
        max_users: int = 20_000,
    ) -> None:
        self._source = source
        self._administrators = frozenset(administrators)
        self._freshness = freshness_seconds
        self._max_users = max_users
        self._version = -1
        self._change = object()  # another one after each expire()
        self._fresh: tuple[object, float] = (None, 0.0)  # the change it was read after, and until when it holds
        self._reading = asyncio.Lock()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="review")
        self._grants: dict[str, Grants] = {}
        self._exists: dict[str, bool] = {}

    def is_administrator(self, user: str) -> bool:
        """Tells whether the configuration names `user` an administrator."""
        return user in self._administrators

    def expire(self) -> None:
        """Makes the next review read the version; for changes made by this very process. Callable from any thread."""
        self._change = object()

    async def review(self, user: str, verb: str, resource: str, namespace: str, name: str) -> Decision:
        """See `mlmesh_kit.access.AccessReviewer`. `name` plays no part: roles are given per namespace."""
        if not is_user(user):
            return Decision(False, "that is not a user's name", namespace)
        grants = await self.grants(user)
        if not self.is_administrator(user):
            return decide(grants, verb, resource, namespace)
        where = namespace or grants.default_namespace
        exists = where in grants.roles or (bool(where) and await self._existence(where))
        return decide_administrator(grants, verb, resource, namespace, exists=exists)

    async def grants(self, user: str) -> Grants:
        """Gives what `user` has been granted, at most `freshness_seconds` old.

        Raises:
            Unavailable: The database does not answer.
        """
        return await self._recall(self._grants, user, self._source.load_grants)

    async def _existence(self, name: str) -> bool:
        return await self._recall(self._exists, name, self._source.load_existence)

    async def _recall(self, memory: dict[str, T], key: str, load: Callable[[str], tuple[int, T]]) -> T:
        await self._freshen()
        known = memory.get(key)
        while known is None:
            version, loaded = await self._ask(load, key)
            if version < self._version:  # somebody else has seen a later one meanwhile: read again
                continue
            self._believe(version)
            while len(memory) >= self._max_users:
                memory.pop(next(iter(memory)))
            memory[key] = known = loaded
        return known

    async def _freshen(self) -> None:
        if self._is_fresh():
            return
        async with self._reading:
            if self._is_fresh():
                return
            change, started = self._change, time.monotonic()
            self._believe(await self._ask(self._source.version))
            self._fresh = (change, started + self._freshness)

    def _is_fresh(self) -> bool:
        change, until = self._fresh
        return change is self._change and time.monotonic() < until

    def _believe(self, version: int) -> None:
        if version == self._version:
            return
        self._grants.clear()
        self._exists.clear()
        self._version = version

    async def _ask(self, read: Callable[..., T], *arguments: str) -> T:
        """Reads in a thread of our own: the handlers' threads may all be waiting for this very answer."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await loop.run_in_executor(self._threads, read, *arguments)
        except Exception as error:
            logger.warning("the access check cannot read the database", exc_info=error)
            raise Unavailable("the access check could not be made; try again", retry_after_seconds=1) from error
