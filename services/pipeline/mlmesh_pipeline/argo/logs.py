"""Logs of pods: from the pod while there is one, then from the object store, where the service keeps them."""

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator, Iterator

from mlmesh_kit.errors import NotFound, ServiceError
from mlmesh_kit.kubernetes import Answer, Refused
from mlmesh_kit.kubernetes import follow as follow_answer
from mlmesh_kit.objectstore import ObjectStore

from mlmesh_pipeline.argo.cluster import Cluster
from mlmesh_pipeline.argo.state import RunState, run_uri
from mlmesh_pipeline.resources import Attempt, AttemptState, Run
from mlmesh_pipeline.store import TaskStore

MAX_BYTES = 64 << 20
"""Of a log that is kept."""
_TAIL_BYTES = 16 << 10
_CHUNK = 64 << 10
_PAUSE_SECONDS = 0.5


def keep_log(cluster: Cluster, state: RunState, namespace: str, pod: str, uri: str) -> str:
    """Keeps the log of a pod; gives its last 16 KiB. A pod that is gone, or never began, leaves none.

    Args:
        cluster: Where the pod is.
        state: Of the run.
        namespace: Of the pod.
        pod: Its name.
        uri: Where the log is kept.
    """
    kept = io.BytesIO()
    try:
        for piece in cluster.log(namespace, pod).pieces():
            kept.write(piece[: MAX_BYTES - kept.tell()])
            if kept.tell() >= MAX_BYTES:
                break
    except (NotFound, Refused):
        pass
    data = kept.getvalue()
    if data:
        state.store.put_bytes(data, uri)
    return data[-_TAIL_BYTES:].decode(errors="replace")


class PodLogs:
    """Reads logs of attempts that are pods.

    Args:
        cluster: Where the pods are.
        store: Where logs are kept.
        state_root: URI of the state of all runs.
        namespace: Kubernetes' namespace of all runs; empty: that of the run.
        tasks: The database.
    """

    def __init__(self, cluster: Cluster, store: ObjectStore, state_root: str, namespace: str, tasks: TaskStore) -> None:
        self._cluster = cluster
        self._store = store
        self._state_root = state_root
        self._namespace = namespace
        self._tasks = tasks

    async def read(self, run: Run, attempt: Attempt, follow: bool) -> AsyncGenerator[bytes, None]:
        """Gives the log of an attempt, in pieces; with `follow` until the attempt ends.

        Args:
            run: Its run.
            attempt: The attempt.
            follow: Whether to wait for more.
        """
        kept = await asyncio.to_thread(self._kept, run, attempt)
        if kept is not None:
            while (piece := await asyncio.to_thread(next, kept, None)) is not None:
                yield piece
            return
        namespace = self._namespace or run.namespace
        while True:
            given = False
            try:
                pieces = follow_answer(
                    lambda: self._cluster.log(namespace, attempt.pod, follow=follow), Answer.pieces, "pod log"
                )
                async with contextlib.aclosing(pieces):
                    async for piece in pieces:
                        given = True
                        yield piece
                return
            except Refused:  # the container has not begun
                if not follow or given or await asyncio.to_thread(self._has_ended, attempt):
                    return
            except ServiceError:  # the pod is gone, or the cluster away
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    def _kept(self, run: Run, attempt: Attempt) -> Iterator[bytes] | None:
        if attempt.state == AttemptState.RUNNING:
            return None
        state = RunState(self._store, run_uri(self._state_root, run.namespace, run.run_id), 1)
        try:
            stream = self._store.open_read(state.log_uri(attempt.task_id, attempt.number))
        except ServiceError:
            return None

        def pieces() -> Iterator[bytes]:
            with stream:
                while piece := stream.read(_CHUNK):
                    yield piece

        return pieces()

    def _has_ended(self, attempt: Attempt) -> bool:
        found = [one for one in self._tasks.attempts_of(attempt.run_id) if one.attempt_id == attempt.attempt_id]
        return not found or found[0].state != AttemptState.RUNNING
