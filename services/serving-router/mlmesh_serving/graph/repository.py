"""The graphs that are served: in the database, and parsed in memory."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound

from mlmesh_serving.changes import Changes
from mlmesh_serving.graph.graph import InferenceGraph
from mlmesh_serving.graph.manifest import parse_graph
from mlmesh_serving.graph.store import GraphStore, StoredGraph
from mlmesh_serving.remote.hosts import AllowedHosts


@dataclass(frozen=True, slots=True)
class ServedGraph:
    """A graph in memory.

    Attributes:
        stored: As it is kept.
        graph: Parsed; None: it was allowed once and is no more.
        problem: Why it is not.
    """

    stored: StoredGraph
    graph: InferenceGraph | None
    problem: str = ""


class GraphRepository:
    """All InferenceGraphs.

    Args:
        store: Keeps them.
        hosts: That a graph may name.
    """

    def __init__(self, store: GraphStore, hosts: AllowedHosts) -> None:
        self._store = store
        self._hosts = hosts
        self._served: dict[tuple[str, str], ServedGraph] = {}
        self._changes = Changes()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reads what the store holds."""
        for stored in await asyncio.to_thread(self._store.list):
            self._keep(stored)
        yield

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> ServedGraph:
        """Adds a graph.

        Raises:
            InvalidArgument: See `parse_graph`.
            AlreadyExists: There is one of this name.
        """
        name = parse_graph(manifest, self._hosts).name

        async def change() -> ServedGraph:
            return self._keep(await asyncio.to_thread(self._store.create, namespace, name, manifest))

        return await self._changes.make(change)

    async def update(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> ServedGraph:
        """Gives a graph another manifest, from the next request on.

        Raises:
            InvalidArgument: See `parse_graph`.
            NotFound: There is none of this name.
        """
        if parse_graph(manifest, self._hosts).name != name:
            raise InvalidArgument(f"must be {name!r}, as in name", field="manifest.metadata.name")

        async def change() -> ServedGraph:
            return self._keep(await asyncio.to_thread(self._store.update, namespace, name, manifest))

        return await self._changes.make(change)

    async def delete(self, namespace: str, name: str) -> None:
        """Removes a graph.

        Raises:
            NotFound: There is none of this name.
        """

        async def change() -> None:
            await asyncio.to_thread(self._store.delete, namespace, name)
            self._served.pop((namespace, name), None)

        await self._changes.make(change)

    def get(self, namespace: str, name: str) -> ServedGraph:
        """Gives what is known of a graph.

        Raises:
            NotFound: There is none of this name.
        """
        served = self._served.get((namespace, name))
        if served is None:
            raise NotFound(message=f"graph {name!r} not found")
        return served

    def ready(self, namespace: str, name: str) -> InferenceGraph:
        """Gives a graph that can be run.

        Raises:
            NotFound: There is none of this name.
            FailedPrecondition: It is not allowed any more.
        """
        served = self.get(namespace, name)
        if served.graph is None:
            raise FailedPrecondition(f"graph {name!r} cannot be run: {served.problem}")
        return served.graph

    def list(self, namespace: str) -> list[ServedGraph]:
        """Gives those of a namespace, by name."""
        return [self._served[key] for key in sorted(self._served) if key[0] == namespace]

    def _keep(self, stored: StoredGraph) -> ServedGraph:
        try:
            served = ServedGraph(stored, parse_graph(stored.manifest, self._hosts))
        except InvalidArgument as error:  # the settings allow less than they did when it was made
            served = ServedGraph(stored, None, error.message)
        self._served[stored.namespace, stored.name] = served
        return served
