"""A trial that is a run of a pipeline."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, NotFound, ServiceError, Unavailable
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import run_pb2

from mlmesh_katib.jobs.base import Ended, Job
from mlmesh_katib.jobs.pipeline_client import PipelineClient
from mlmesh_katib.jobs.pipeline_values import metrics_of

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
_AWAY_PAUSE = 15.0
_KILL_SECONDS = 60.0
_ENDED = {run_pb2.SUCCEEDED, run_pb2.FAILED, run_pb2.CANCELED}


class PipelineJob(Job):
    """A run of a pipeline that is followed to its end.

    Args:
        client: Of the pipeline service.
        run_id: Of the run.
        outputs: Names of the pipeline's own output parameters.
        log_path: Where what its tasks do is written down.
    """

    reports_metrics = True

    def __init__(self, client: PipelineClient, run_id: str, outputs: Iterable[str], log_path: Path) -> None:
        self.reference: Mapping[str, Any] = {"run_id": run_id, "outputs": sorted(outputs)}
        self.log_path = self._log = log_path
        self._client = client
        self._run_id = run_id
        self._given: set[tuple[str, str, str]] = set()
        self._states: dict[str, int] = {}
        log_path.write_text(f"runs/{run_id}\n")

    async def wait(self) -> Ended:
        """Asks for the run until it has ended."""
        pause = _FIRST_PAUSE
        while True:
            try:
                run = await self._client.run(self._run_id)
            except NotFound:
                return Ended(ok=False, message="its run was deleted")
            except ServiceError as error:
                pause = min(max(pause * 2, 1.0), _AWAY_PAUSE)
                logger.warning("run %s: %s; again in %gs", self._run_id, error.message, pause)
            else:
                await asyncio.to_thread(self._note, run)
                if run.state in _ENDED:
                    return _ended(run)
                pause = min(pause * 1.2, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def kill(self) -> None:
        """Terminates the run, and waits until it has ended.

        Raises:
            Unavailable: The pipeline service is away, or the run has not ended after a minute.
        """
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await self._terminate()
                while True:
                    run = await self._client.run(self._run_id)
                    if run.state in _ENDED:
                        return
                    await asyncio.sleep(_FIRST_PAUSE)
        except NotFound:
            return
        except TimeoutError:
            raise Unavailable(f"run {self._run_id} has not ended yet") from None

    async def reports(self) -> Sequence[tuple[str, str]]:
        """Gives the metrics of the tasks that have ended since."""
        try:
            outputs = await self._client.outputs(self._run_id)
        except ServiceError as error:
            logger.warning("outputs of run %s: %s", self._run_id, error.message)
            return ()
        found = [one for one in metrics_of(outputs, frozenset(self.reference["outputs"])) if one not in self._given]
        self._given.update(found)
        return [(name, value) for _, name, value in found]

    async def _terminate(self) -> None:
        while True:
            try:
                return await self._client.terminate(self._run_id)
            except FailedPrecondition:  # it has ended
                return None
            except Unavailable as error:
                logger.warning("run %s cannot be terminated yet: %s", self._run_id, error.message)
                await asyncio.sleep(1)

    def _note(self, run: Any) -> None:
        """Writes down what tasks have done since."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines = []
        for task in run.run_details.task_details:
            if self._states.get(task.task_id) != task.state:
                self._states[task.task_id] = task.state
                words = f": {task.error.message}" if task.error.message else ""
                lines.append(f"{at} {task.display_name} {run_pb2.RuntimeState.Name(task.state)}{words}\n")
        if lines:
            with self._log.open("a") as file:
                file.writelines(lines)


def _ended(run: Any) -> Ended:
    if run.state == run_pb2.SUCCEEDED:
        return Ended(ok=True, message=f"run {run.run_id} succeeded")
    if run.state == run_pb2.CANCELED:
        return Ended(ok=False, message=f"run {run.run_id} was terminated")
    return Ended(ok=False, message=f"run {run.run_id} failed: {run.error.message}"[:1000])
