"""Hands each request of a model to the revision that it goes to."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from mlmesh_kit.errors import NotFound, ServiceError, Unavailable
from prometheus_client import Counter

from mlmesh_serving.backend import Backend, WireAnswer, WireRequest
from mlmesh_serving.traffic.names import revision_number
from mlmesh_serving.traffic.split import Split

SHADOW_TOTAL = Counter(
    "mlmesh_serving_shadow_requests_total",
    "Copies of requests that were meant for a shadow revision, by what became of them",
    ["model", "revision", "outcome"],
)
MAX_SHADOWS = 64
"""Copies that may be under way to a shadow revision; beyond it they are dropped and counted."""


@dataclass(frozen=True, slots=True)
class _Table:
    """What one assignment changes: which revision, and who answers for it."""

    split: Split
    backends: Mapping[int, Backend]
    only: Backend | None


class Router:
    """Routes the requests of one model, on one event loop.

    Args:
        model: Its name, for messages and metrics.
        max_shadows: Copies under way to a shadow revision at most.
    """

    def __init__(self, model: str, max_shadows: int = MAX_SHADOWS) -> None:
        self._model = model
        self._max_shadows = max_shadows
        self._table: _Table | None = None
        self._why = "no revision is ready"

    @property
    def split(self) -> Split | None:
        """What decides now; None: nothing answers."""
        return self._table.split if self._table else None

    @property
    def backends(self) -> Mapping[int, Backend]:
        """Who may be asked, by revision."""
        return self._table.backends if self._table else {}

    def switch(self, split: Split, backends: Mapping[int, Backend]) -> None:
        """Routes by another split from the next request on; those that were handed over stay where they are.

        Args:
            split: What decides.
            backends: By revision; those that are not in it are asked no more, and may be closed.
        """
        only = backends.get(split.only) if split.only is not None else None
        self._table = _Table(split, dict(backends), only)

    def stop(self, why: str) -> None:
        """Answers nothing from the next request on.

        Args:
            why: For the caller, after "model ... is not ready: ".
        """
        self._table, self._why = None, why

    def submit(self, request: WireRequest, version: str = "") -> "asyncio.Future[WireAnswer]":
        """Hands a request over; see `Backend.submit`.

        Args:
            request: As it came.
            version: What the caller wants: a number, a revision's name, a tag; empty: the split decides.

        Raises:
            NotFound: There is no such version.
            Unavailable, ResourceExhausted: See `Backend.submit`.
        """
        table = self._table
        if table is None:
            raise Unavailable(f"model {self._model!r} is not ready: {self._why}", retry_after_seconds=1)
        if version:
            return self.resolve(version)[1].submit(request)
        if table.only is not None:
            return table.only.submit(request)
        split = table.split
        revision = split.choose(request.headers)
        backend = table.backends.get(revision)
        if backend is None:
            raise Unavailable(f"revision {revision} of model {self._model!r} is not ready", retry_after_seconds=1)
        answer = backend.submit(request)
        if split.shadow_revision is not None and split.mirrors():
            asyncio.get_running_loop().call_soon(self._copy, table, request)
        return answer

    def resolve(self, version: str = "") -> tuple[int, Backend]:
        """Gives a revision that can be asked, and who answers for it.

        Args:
            version: A number, a revision's name (`iris-00002`), a tag; empty: the one with the greatest share.

        Raises:
            NotFound: There is no such version.
            Unavailable: It is not ready.
        """
        table = self._table
        if table is None:
            raise Unavailable(f"model {self._model!r} is not ready: {self._why}", retry_after_seconds=1)
        shares = table.split.shares
        if version:
            revision = shares.tags.get(version) or revision_number(self._model.rpartition(".")[2], version)
        else:
            revision = max(shares.percents, key=lambda number: (shares.percents[number], number))
        backend = table.backends.get(revision)
        if backend is not None:
            return revision, backend
        if not version:
            raise Unavailable(f"revision {revision} of model {self._model!r} is not ready", retry_after_seconds=1)
        known = ", ".join([*(str(number) for number in sorted(table.backends)), *sorted(shares.tags)])
        raise NotFound(message=f"model {self._model!r} has no version {version!r}; {known} can be asked")

    def _copy(self, table: _Table, request: WireRequest) -> None:
        """Sends a copy to the shadow; whatever becomes of it is counted, and touches nobody."""
        revision = table.split.shadow_revision or 0
        backend = table.backends.get(revision)
        if backend is None or backend.in_flight >= self._max_shadows:
            self._count(revision, "dropped")
            return
        try:
            answer = backend.submit(request)
        except ServiceError:
            self._count(revision, "refused")
            return
        answer.add_done_callback(lambda done: self._count(revision, "failed" if _failed(done) else "answered"))

    def _count(self, revision: int, outcome: str) -> None:
        SHADOW_TOTAL.labels(self._model, str(revision), outcome).inc()


def _failed(answer: "asyncio.Future[WireAnswer]") -> bool:
    return answer.cancelled() or answer.exception() is not None
