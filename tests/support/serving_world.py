"""The control plane of the serving router, whole but for models: a real store and rollouts, with backends that answer
their revision's number."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlmesh_kit.database import create_engine, migrate
from mlmesh_kit.errors import NotFound, ServiceError
from mlmesh_serving.manifest import Feature, parse_manifest
from mlmesh_serving.servicers.control import ControlServicer
from mlmesh_serving.store import ServingStore, StoredService
from mlmesh_serving.traffic.control import TrafficControl
from mlmesh_serving.traffic.rollout import Rollout
from support.revision_backend import FakeBackend, a_request


class FakeRepository:
    """What the repository does of rollouts, with backends that answer at once, when a gate opens, or not at all.

    Attributes:
        broken: Revisions that cannot be loaded, and why.
        gates: Revisions that are loaded when it is set.
        held: Rollouts in memory.
    """

    def __init__(self, store: ServingStore) -> None:
        self.store = store
        self.broken: dict[int, ServiceError] = {}
        self.gates: dict[int, asyncio.Event] = {}
        self.held: dict[tuple[str, str], Rollout[FakeBackend]] = {}

    def rollout(self, namespace: str, name: str) -> Rollout[FakeBackend] | None:
        if (namespace, name) not in self.held:
            stored = self.store.get(namespace, name)
            return None if stored.unloaded else self._apply(stored)
        return self.held[namespace, name]

    async def change(self, write: Callable[[], StoredService]) -> tuple[StoredService, Rollout[FakeBackend] | None]:
        stored = await asyncio.to_thread(write)
        return stored, None if stored.unloaded else self._apply(stored)

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> Any:
        spec = parse_manifest(manifest, frozenset({"sklearn"}), frozenset(Feature))
        return SimpleNamespace(stored=(await self.change(lambda: self.store.create(namespace, spec.name, manifest)))[0])

    async def update(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> Any:
        parse_manifest(manifest, frozenset({"sklearn"}), frozenset(Feature))
        return SimpleNamespace(stored=(await self.change(lambda: self.store.update(namespace, name, manifest)))[0])

    def get(self, namespace: str, name: str) -> Any:
        return SimpleNamespace(stored=self.store.get(namespace, name))

    def list(self) -> list[Any]:
        return [SimpleNamespace(stored=stored) for stored in self.store.list()]

    def _apply(self, stored: StoredService) -> Rollout[FakeBackend]:
        key = (stored.namespace, stored.name)

        async def load(revision: int) -> FakeBackend:
            if revision in self.gates:
                await self.gates[revision].wait()
            if revision in self.broken:
                raise self.broken[revision]
            return FakeBackend(revision)

        async def record(state: Any) -> None:
            await asyncio.to_thread(self.store.record_rollout, *key, state)

        if key not in self.held:
            self.held[key] = Rollout(stored.name, stored.rollout, load, record)
        self.held[key].apply(stored.revision, stored.traffic, stored.canary_percent, again=True)
        return self.held[key]


class ServingWorld:
    """Store, repository and servicer.

    Args:
        folder: For the database.
        namespace: Whose models go by their plain names.
    """

    def __init__(self, folder: Path, namespace: str) -> None:
        engine = create_engine(f"sqlite:///{folder}/serving.sqlite3")
        migrate(engine, "mlmesh_serving")
        self.store = ServingStore(engine)
        self.repository = FakeRepository(self.store)
        control = TrafficControl(self.store, self.repository, settle_seconds=5)
        self.servicer = ControlServicer(self.repository, namespace, control)  # type: ignore[arg-type]
        self.namespace = namespace

    async def shares(self, name: str, count: int = 1000, **headers: str) -> dict[int, int]:
        """Asks so many times; gives how many percent which revision answered."""
        held = self.repository.held.get((self.namespace, name))
        if held is None:
            raise NotFound("inferenceservice", name)
        got = await asyncio.gather(*(held.router.submit(a_request(**headers)) for _ in range(count)))
        return {number: round(n * 100 / count) for number, n in Counter(int(a.body) for a in got).items()}
