"""Brings what the primary pods of a trial print into a file of this machine, as it comes."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from mlmesh_kit.errors import NotFound, ServiceError
from mlmesh_kit.kubernetes import Answer, Refused, follow

from mlmesh_katib.jobs.cluster import Cluster
from mlmesh_katib.jobs.pods import primary_container, restarts

logger = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
"""Of the log of a trial; what comes after is not kept."""
_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 0.5
_TOO_LONG = b" [the log is longer; what follows was not kept]\n"


class PodLogs:
    """Follows the logs of all primary pods of a trial; several are woven line by line.

    Args:
        cluster: Where they are.
        namespace: Kubernetes'.
        labels: That they have.
        container: Whose log; empty: of the first container.
        path: Where it goes; written anew.
        look_seconds: How often is looked for pods.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        labels: Mapping[str, str],
        container: str,
        path: Path,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._labels = labels
        self._container = container
        self._path = path
        self._look_seconds = look_seconds
        self._readers: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._written = 0
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Follows them until `finish`, then what is left of the logs to their end."""
        with self._path.open("wb", buffering=0) as file:
            try:
                while not self._ended.is_set():
                    await self._look(file)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._look_seconds):
                            await self._ended.wait()
                await self._look(file)  # a pod may have come and gone since
                await asyncio.gather(*self._readers.values())
            finally:
                for reader in self._readers.values():
                    reader.cancel()
                await asyncio.gather(*self._readers.values(), return_exceptions=True)

    def finish(self) -> None:
        """Says that no more pods will come."""
        self._ended.set()

    async def _look(self, file: BinaryIO) -> None:
        try:
            pods = await asyncio.to_thread(self._cluster.pods, self._namespace, self._labels)
        except ServiceError as error:
            logger.warning("pods of %s: %s", self._path.parent.name, error.message)
            return
        for pod in pods:
            name = pod["metadata"]["name"]
            container = primary_container(pod, self._container)
            if container is None:
                continue
            key = (name, restarts(pod, container))  # a container that is started again has a log of its own
            if key not in self._readers:
                reader = self._read(name, container, self._write_to(file))
                self._readers[key] = asyncio.create_task(reader, name=f"log of {name}")

    async def _read(self, pod: str, container: str, write: Callable[[bytes], None]) -> None:
        rest = b""
        seen = 0  # after a lost connection the log comes from its beginning again
        while True:
            position = 0
            pieces = follow(lambda: self._cluster.log(self._namespace, pod, container), Answer.pieces, f"log of {pod}")
            try:
                async with contextlib.aclosing(pieces):
                    async for piece in pieces:
                        new = piece[max(0, seen - position) :]
                        position += len(piece)
                        seen = max(seen, position)
                        *lines, rest = (rest + new).split(b"\n")
                        if lines:
                            write(b"\n".join(lines) + b"\n")
                break
            except NotFound:  # the pod is gone
                break
            except Refused:  # the container has not begun
                if self._ended.is_set():
                    break
            except ServiceError as error:
                logger.warning("log of pod %s: %s", pod, error.message)
            await asyncio.sleep(_RETRY_SECONDS)
        if rest:
            write(rest + b"\n")

    def _write_to(self, file: BinaryIO) -> Callable[[bytes], None]:
        def write(lines: bytes) -> None:
            room = MAX_BYTES - self._written
            if room > 0:
                file.write(lines if len(lines) <= room else lines[:room] + _TOO_LONG)
            self._written += len(lines)

        return write
