"""Hears of changes of Workflows: one watch for each namespace, whatever the number of runs in it."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlmesh_kit.errors import ServiceError
from mlmesh_kit.kubernetes import Gone

from mlmesh_pipeline.argo.cluster import Cluster
from mlmesh_pipeline.argo.workflow import MANAGED_BY

logger = logging.getLogger(__name__)
Json = dict[str, Any]
SELECTOR = f"app.kubernetes.io/managed-by={MANAGED_BY}"
_LONGEST_PAUSE = 10.0


class Changes:
    """The latest that is known of a Workflow; what was before it, and was not looked at, is not kept."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()
        self._latest: Json | None = None

    async def next(self, timeout_seconds: float) -> Json | None:
        """Waits for a change, a call of `wake`, or the time; gives what is known that was not given before, or None."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._event.wait()
        except TimeoutError:
            return None
        self._event.clear()
        latest, self._latest = self._latest, None
        return latest

    def wake(self) -> None:
        """Ends the waiting; from the event loop."""
        self._event.set()

    def tell(self, workflow: Json | None) -> None:
        """Says how a Workflow is now, None that it may be gone; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, workflow)

    def _tell(self, workflow: Json | None) -> None:
        self._latest = workflow
        self._event.set()


class WorkflowWatches:
    """Watches namespaces for as long as somebody follows a Workflow there.

    Args:
        cluster: What is asked.
        pause_seconds: First pause after the cluster could not be asked; doubles.
        watch_seconds: How long one watch lasts; it then goes on from where it was.
    """

    def __init__(self, cluster: Cluster, *, pause_seconds: float = 0.5, watch_seconds: int = 60) -> None:
        self._cluster = cluster
        self._pause = pause_seconds
        self._watch_seconds = watch_seconds
        self._lock = threading.Lock()
        self._followed: dict[str, dict[str, Changes]] = {}
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends the watches; each when its connection next says something, or within `watch_seconds`."""
        self._stopped.set()

    @contextmanager
    def following(self, namespace: str, name: str) -> Iterator[Changes]:
        """Gives the changes of a Workflow."""
        changes = Changes(asyncio.get_running_loop())
        with self._lock:
            is_new = namespace not in self._followed
            self._followed.setdefault(namespace, {})[name] = changes
        if is_new:
            threading.Thread(target=self._run, args=(namespace,), name=f"watch {namespace}", daemon=True).start()
        try:
            yield changes
        finally:
            with self._lock:
                self._followed.get(namespace, {}).pop(name, None)

    def _run(self, namespace: str) -> None:
        pause = self._pause
        while self._wanted(namespace):
            try:
                version = self._list(namespace)
                pause = self._pause
                while self._wanted(namespace):
                    version = self._watch(namespace, version)
            except Gone:
                logger.info("the watch of namespace %s starts anew", namespace)
            except ServiceError as error:
                logger.warning("namespace %s cannot be watched: %s; again in %gs", namespace, error.message, pause)
                self._stopped.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except Exception:
                logger.exception("watching namespace %s", namespace)
                self._stopped.wait(pause)

    def _wanted(self, namespace: str) -> bool:
        with self._lock:
            if self._stopped.is_set() or not self._followed.get(namespace):
                self._followed.pop(namespace, None)
                return False
        return True

    def _list(self, namespace: str) -> str:
        items, version = self._cluster.workflows(namespace, SELECTOR)
        found = {item["metadata"]["name"]: item for item in items}
        with self._lock:
            followed = dict(self._followed.get(namespace, {}))
        for name, changes in followed.items():
            changes.tell(found.get(name))
        return version

    def _watch(self, namespace: str, version: str) -> str:
        for kind, item in self._cluster.watch_workflows(namespace, SELECTOR, version, self._watch_seconds):
            metadata = item.get("metadata", {})
            version = metadata.get("resourceVersion", version)
            with self._lock:
                changes = self._followed.get(namespace, {}).get(metadata.get("name", ""))
            if changes is not None and kind in {"ADDED", "MODIFIED", "DELETED"}:
                changes.tell(item if kind != "DELETED" else None)
            if not self._wanted(namespace):
                break
        return version
