"""What an operator does with the traffic of a model: set it, promote, roll back."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mlmesh_kit.errors import FailedPrecondition, NotFound

from mlmesh_serving.store import ServingStore, StoredRevision, StoredService
from mlmesh_serving.traffic.names import revision_name, revision_number
from mlmesh_serving.traffic.plan import TAG_LATEST
from mlmesh_serving.traffic.rollout import RevisionState, Rollout
from mlmesh_serving.traffic.rules import check_patterns
from mlmesh_serving.traffic.settings import LATEST, Traffic, check_traffic

SETTLE_SECONDS = 55.0
"""How long a change is waited for; the ingress gives a call a minute or two."""


class Rollouts(Protocol):
    """What is asked of whoever holds the models in memory."""

    def rollout(self, namespace: str, name: str) -> Rollout[Any] | None:
        """Gives the revisions of a model in memory; None: it is unloaded.

        Raises:
            NotFound: There is none of this name.
        """

    async def change(self, write: Callable[[], StoredService]) -> tuple[StoredService, Rollout[Any] | None]:
        """Changes the store and then memory, with no other change between the two and to its end.

        Args:
            write: Changes the store; blocks, runs in a thread.

        Returns:
            What is kept now, and the rollout that `apply` has been told of; None: the model is unloaded.
        """


class TrafficControl:
    """Changes traffic, and waits until requests go where they should.

    Args:
        store: Keeps what is asked for.
        rollouts: Do it.
        settle_seconds: How long a change is waited for.
    """

    def __init__(self, store: ServingStore, rollouts: Rollouts, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._store = store
        self._rollouts = rollouts
        self._settle_seconds = settle_seconds

    def rollout(self, namespace: str, name: str) -> Rollout[Any] | None:
        """Gives the revisions of a model in memory; see `Rollouts.rollout`."""
        return self._rollouts.rollout(namespace, name)

    async def set_traffic(
        self, namespace: str, name: str, traffic: Traffic
    ) -> tuple[StoredService, Rollout[Any] | None]:
        """Spreads requests as an operator says.

        Raises:
            InvalidArgument: It is not well formed; see `check_traffic`.
            NotFound: There is no such model, or no revision of a number that is named.
            FailedPrecondition: A revision cannot be loaded; requests go where they went.
        """
        check_traffic(traffic)
        await asyncio.to_thread(check_patterns, traffic.rules)
        return await self._change(namespace, name, lambda: self._store.set_traffic(namespace, name, traffic))

    async def promote(self, namespace: str, name: str, revision: str = "") -> tuple[StoredService, Rollout[Any] | None]:
        """Gives all requests to a revision; empty: the newest.

        Raises:
            NotFound: There is no such model or revision.
            FailedPrecondition: The revision cannot be loaded; requests go where they went.
        """
        number = self.number(namespace, name, revision) if revision else LATEST
        return await self._change(
            namespace, name, lambda: self._store.promote(namespace, name, number), newest=number == LATEST
        )

    async def roll_back(
        self, namespace: str, name: str, revision: str = ""
    ) -> tuple[StoredService, Rollout[Any] | None]:
        """Gives all requests to an earlier revision; empty: the one that had them before.

        Raises:
            NotFound: There is no such model or revision.
            FailedPrecondition: There is no earlier revision, or it cannot be loaded; requests go where they went.
        """
        number = self.number(namespace, name, revision) if revision else 0
        return await self._change(namespace, name, lambda: self._store.roll_back(namespace, name, number))

    async def revision(self, namespace: str, name: str, revision: str) -> StoredRevision:
        """Reads a revision by its name or number.

        Raises:
            NotFound: There is no such model or revision.
        """
        number = revision_number(name, revision)
        if not number:
            raise NotFound("revision", revision)
        return await asyncio.to_thread(self._store.revision, namespace, name, number)

    async def revisions(self, namespace: str, name: str, before: int | None, most: int) -> Sequence[StoredRevision]:
        """Reads revisions, the newest first; see `ServingStore.revisions`."""
        return await asyncio.to_thread(self._store.revisions, namespace, name, before=before, most=most)

    def number(self, namespace: str, name: str, revision: str) -> int:
        """Gives the number of a revision that is named by number, name, or a tag in use; LATEST for `latest`.

        Raises:
            NotFound: It is none of these.
        """
        if revision == TAG_LATEST:
            return LATEST
        rollout = self._rollouts.rollout(namespace, name)
        tags = rollout.shares.tags if rollout is not None and rollout.shares is not None else {}
        number = tags.get(revision) or revision_number(name, revision)
        if not number:
            raise NotFound("revision", revision)
        return number

    async def _change(
        self, namespace: str, name: str, write: Callable[[], StoredService], *, newest: bool = False
    ) -> tuple[StoredService, Rollout[Any] | None]:
        """Makes a change, and undoes it if a revision that it needs cannot be loaded; with `newest` the newest too."""
        before = await asyncio.to_thread(self._store.get, namespace, name)
        after, rollout = await self._rollouts.change(write)
        if rollout is None:
            return after, None
        try:
            # What takes longer goes on; the answer's conditions say so.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(rollout.settled(), self._settle_seconds)
            if newest:
                _check_newest(after, rollout)
        except FailedPrecondition:
            await self._rollouts.change(lambda: self._store.put_back(before, after))
            raise
        return after, rollout


def _check_newest(stored: StoredService, rollout: Rollout[Any]) -> None:
    status = rollout.status(stored.revision)
    if status.state is RevisionState.FAILED:
        raise FailedPrecondition(
            f"revision {revision_name(stored.name, stored.revision)} could not be loaded: {status.message}"
        )
