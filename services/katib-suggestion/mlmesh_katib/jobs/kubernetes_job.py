"""A trial that is a resource of Kubernetes."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import NotFound, ServiceError, Unavailable
from mlmesh_kit.kubernetes import Answer, Gone, follow

from mlmesh_katib.jobs.base import Ended, Job
from mlmesh_katib.jobs.cluster import Cluster, Json
from mlmesh_katib.jobs.conditions import Conditions
from mlmesh_katib.jobs.pod_logs import PodLogs

logger = logging.getLogger(__name__)

WATCH_SECONDS = 60
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
_LOG_SECONDS = 15.0
_KILL_SECONDS = 120.0
_DELETED = Ended(ok=False, message="its resource was deleted")


class KubernetesJob(Job):
    """A resource of Kubernetes that is followed to its end.

    Args:
        cluster: Where it is.
        resource: As the cluster gave it.
        conditions: When it has ended.
        logs: Brings its log.
        log_path: Where that goes.
    """

    def __init__(self, cluster: Cluster, resource: Json, conditions: Conditions, logs: PodLogs, log_path: Path) -> None:
        metadata = resource["metadata"]
        self.reference: Mapping[str, Any] = {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        }
        self.log_path = log_path
        self._cluster = cluster
        self._conditions = conditions
        self._logs = logs
        log_path.write_bytes(b"")  # that of an earlier attempt is not this one's

    async def wait(self) -> Ended:
        """Waits until a condition holds or the resource is gone, then for the rest of the log."""
        following = asyncio.create_task(self._logs.run(), name=f"logs of {self.reference['name']}")
        try:
            ended = await self._end()
            self._logs.finish()
            done, _ = await asyncio.wait([following], timeout=_LOG_SECONDS)  # what it printed last is on its way
            if not done:
                logger.warning("the log of %s did not end with it", self.reference["name"])
            elif (error := following.exception()) is not None:
                logger.error("the log of %s is not whole: %s", self.reference["name"], error)
            return ended
        finally:
            following.cancel()

    async def kill(self) -> None:
        """Deletes the resource, and waits until it and all that it owns are gone.

        Raises:
            Unavailable: They are not gone after 2 minutes.
            PermissionDenied: The cluster does not let us.
        """
        pause = _FIRST_PAUSE
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                while True:
                    try:
                        if not await self._delete("Foreground") or await self._find() is None:
                            return
                    except Unavailable as error:
                        logger.warning("%s cannot be deleted yet: %s", self.reference["name"], error.message)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
        except TimeoutError:
            raise Unavailable(f"{self.reference['kind']} {self.reference['name']} is not gone yet") from None

    async def _end(self) -> Ended:
        pause = _FIRST_PAUSE
        while True:
            try:
                resource = await self._find()
                if resource is None:
                    return _DELETED
                ended = self._conditions.ended(resource) or await self._watch(resource)
                if ended is not None:
                    return ended
                pause = _FIRST_PAUSE
            except Gone:
                logger.info("the watch of %s starts anew", self.reference["name"])
            except ServiceError as error:
                logger.warning("%s cannot be watched: %s; again in %gs", self.reference["name"], error.message, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _watch(self, resource: Json) -> Ended | None:
        """Watches from what is known until the end of the trial or of the watch."""
        since = resource["metadata"].get("resourceVersion", "")
        events = follow(
            lambda: self._cluster.watch(*self._place, since, WATCH_SECONDS),
            Answer.events,
            f"watch of {self.reference['name']}",
        )
        async with contextlib.aclosing(events):
            async for kind, changed in events:
                if changed.get("metadata", {}).get("name") != self.reference["name"]:
                    continue
                if kind == "DELETED" or not self._is_it(changed):
                    return _DELETED
                ended = self._conditions.ended(changed)
                if ended is not None:
                    return ended
        return None

    async def _find(self) -> Json | None:
        try:
            found = await asyncio.to_thread(self._cluster.get, *self._place)
        except NotFound:
            return None
        return found if self._is_it(found) else None

    def _is_it(self, resource: Mapping[str, Any]) -> bool:
        return bool(resource["metadata"].get("uid", "") == self.reference["uid"])

    async def _delete(self, propagation: str) -> bool:
        return await asyncio.to_thread(self._cluster.delete, *self._place, self.reference["uid"], propagation)

    @property
    def _place(self) -> tuple[str, str, str, str]:
        found = self.reference
        return found["apiVersion"], found["kind"], found["namespace"], found["name"]
