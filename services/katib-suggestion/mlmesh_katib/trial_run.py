"""One trial, from its start to its end: its job, and what it reports meanwhile."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from mlmesh_kit.errors import ServiceError, Unavailable

from mlmesh_katib import checkpoints, collectors, models
from mlmesh_katib.algorithms import ALGORITHMS
from mlmesh_katib.collectors import PUSHED, CollectionError, Collector, MetricLog, Place
from mlmesh_katib.experiment import Experiment, Trial, TrialState, now_ms
from mlmesh_katib.jobs.base import Ended, Job, JobBackend, JobSpec
from mlmesh_katib.manifest import ExperimentSpec
from mlmesh_katib.models import ModelKeeper
from mlmesh_katib.objective import MetricSummary, summarize
from mlmesh_katib.store import KatibStore
from mlmesh_katib.template import render

logger = logging.getLogger(__name__)
T = TypeVar("T")
_BATCH = 1000
_PUSH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a trial runs with.

    Attributes:
        experiment: It belongs to.
        spec: Of the experiment.
        store: Keeps it.
        backend: Runs it.
        save: Writes a trial in a new state.
        reported: Told of a trial that has reported something new; gives why it should be stopped early, or None.
        leaving: Tells whether being cancelled means that another replica goes on with the experiment.
        models: Keeps the model that a trial makes.
    """

    experiment: Experiment
    spec: ExperimentSpec
    store: KatibStore
    backend: JobBackend
    save: Callable[[Trial], Awaitable[None]]
    reported: Callable[[Trial], Awaitable[str | None]]
    leaving: Callable[[], bool]
    models: ModelKeeper


def job_spec(experiment: Experiment, spec: ExperimentSpec, trial: Trial) -> JobSpec:
    """Makes the job of a trial.

    Raises:
        InvalidArgument: The template cannot be filled in with what the algorithm gave.
    """
    template = spec.template
    return JobSpec(
        experiment_id=experiment.id,
        namespace=experiment.namespace,
        experiment=experiment.name,
        trial=trial.name,
        manifest=render(
            template, spec.space.with_blanks(trial.assignments), trial.name, experiment.namespace, trial.labels
        ),
        primary_container=template.primary_container,
        success_condition=template.success_condition,
        failure_condition=template.failure_condition,
        retain=template.retain,
        labels=trial.labels,
        primary_pod_labels=template.primary_pod_labels,
        prepare=lambda work: {
            **collectors.prepare(spec.collector, work),
            **checkpoints.prepare(work, spec.algorithm, trial.labels),
            **models.prepare(work),
        },
    )


class TrialRun:
    """Runs one trial.

    Args:
        trial: As it is kept.
        around: What it runs with.
    """

    def __init__(self, trial: Trial, around: Surroundings) -> None:
        self._trial = trial
        self._around = around
        self._stop_reason: str | None = None
        self._stopping = asyncio.Event()
        self._namespace = around.experiment.namespace

    def stop_early(self, reason: str) -> None:
        """Ends the trial as EarlyStopped."""
        self._stop_reason = self._stop_reason or reason
        self._stopping.set()

    async def run(self) -> None:
        """Runs it to its end; being cancelled kills its job, except one that can be found again."""
        around = self._around
        try:
            spec = job_spec(around.experiment, around.spec, self._trial)
            job = await self._job(spec)
        except Unavailable:
            raise
        except ServiceError as error:
            await self._end(TrialState.FAILED, f"Trial has failed: it could not be started: {error.message}")
            return
        try:
            ended, problem = await self._follow(job)
        except BaseException:
            if around.leaving() and job.work_dir is None:
                raise  # it runs elsewhere, and is found again
            await asyncio.shield(job.kill())
            raise
        if ended.lost:  # what held the trial went away, not the trial itself: run it again
            await around.save(
                replace(
                    self._trial.enter(TrialState.CREATED, "Trial was interrupted and will run again"), reference=None
                )
            )
            return
        await self._conclude(job, ended, problem)
        with contextlib.suppress(ServiceError):
            await around.backend.cleanup(spec, job.reference)

    async def _job(self, spec: JobSpec) -> Job:
        trial = self._trial
        if trial.reference is not None:
            job = await self._around.backend.find(spec, trial.reference)
            if job is not None:
                return job
        # What an attempt that was interrupted has reported does not count for this one.
        await asyncio.to_thread(self._around.store.delete_logs, self._namespace, trial.name)
        job = await self._around.backend.start(spec)
        try:
            self._trial = replace(
                trial.enter(TrialState.RUNNING, "Trial is running"),
                attempts=trial.attempts + 1,
                reference=job.reference,
                started_ms=now_ms(),
            )
            await self._around.save(self._trial)
        except BaseException:
            await asyncio.shield(job.kill())
            raise
        return job

    async def _follow(self, job: Job) -> tuple[Ended, str]:
        """Waits for the end of a job and collects meanwhile; gives also why nothing could be collected."""
        waiting = asyncio.create_task(job.wait())
        place = Place(job.log_path, job.work_dir, process_group=job.reference.get("pid"))
        collector = None if job.reports_metrics else collectors.make(self._around.spec.collector, place)
        stopping = asyncio.create_task(self._stopping.wait())
        interval = _PUSH_SECONDS if collector is None else collector.interval_seconds
        problem = ""
        try:
            while not waiting.done() and not stopping.done():
                await asyncio.wait({waiting, stopping}, timeout=interval, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    problem = await self._collect(job, collector, ended=False) or problem
            if not waiting.done():
                await job.kill()
            ended = await waiting
            if not ended.lost:
                problem = await self._collect(job, collector, ended=True) or problem
            return ended, problem
        finally:
            waiting.cancel()
            stopping.cancel()
            if collector is not None:
                collector.close()

    async def _collect(self, job: Job, collector: Collector | None, *, ended: bool) -> str:
        """Reads, writes, and asks whether to go on; gives why nothing could be read, or an empty text."""
        problem = ""
        reports: Sequence[MetricLog] = ()
        if collector is None:
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            reports = [MetricLog(at, name, value) for name, value in await job.reports()]
        else:
            try:
                reports = await asyncio.to_thread(collector.poll, ended=ended)
            except CollectionError as error:
                problem = str(error)
        for start in range(0, len(reports), _BATCH):
            batch = reports[start : start + _BATCH]
            writing = asyncio.to_thread(self._around.store.report_logs, self._namespace, self._trial.name, batch)
            await _whole(writing)
        pushed = self._around.spec.collector.kind in PUSHED
        if not ended and (reports or pushed) and (reason := await self._around.reported(self._trial)):
            self.stop_early(reason)
        return problem

    async def _conclude(self, job: Job, ended: Ended, problem: str) -> None:
        found = await asyncio.to_thread(self._around.store.reports, self._namespace, self._trial.name)
        objective = self._around.spec.objective
        wanted = set(objective.metrics)
        observation = tuple(summarize([(log.name, log.value) for _, log in found if log.name in wanted]))
        self._trial = replace(self._trial, observation=observation)
        if self._stop_reason is not None:
            said = f"Trial is early stopped: {self._stop_reason}"
            await self._end(TrialState.EARLY_STOPPED, said + await self._keep_model(job))
        elif not ended.ok:
            await self._end(TrialState.FAILED, f"Trial has failed: {ended.message}")
        elif missing := self._missing(observation):
            kind = self._around.spec.collector.kind
            why = problem or f"the collector {kind} found no number as {', '.join(missing)}"
            await self._end(TrialState.METRICS_UNAVAILABLE, f"Metrics are not available: {why}")
        else:
            await self._end(TrialState.SUCCEEDED, "Trial has succeeded" + await self._keep_model(job))

    async def _keep_model(self, job: Job) -> str:
        """Keeps what the trial has left; gives why it could not, as an addition to its message."""
        if job.work_dir is None:
            return ""
        keeping = asyncio.to_thread(self._around.models.keep, self._around.experiment, self._trial, job.work_dir)
        try:
            self._trial = replace(self._trial, model_uri=await _whole(keeping))
        except (ServiceError, OSError) as error:
            why = error.message if isinstance(error, ServiceError) else error.strerror
            return f"; its model was not kept: {why}"
        return ""

    def _missing(self, observation: Sequence[MetricSummary]) -> Sequence[str]:
        """Gives the metrics of objectives that have no number; no text either, with an algorithm that takes one."""
        spec = self._around.spec
        missing = spec.objective.missing(observation)
        if not ALGORITHMS[spec.algorithm].takes_texts:
            return missing
        reported = {summary.name for summary in observation}
        return [name for name in missing if name not in reported]

    async def _end(self, state: TrialState, message: str) -> None:
        self._trial = replace(self._trial.enter(state, message), completed_ms=now_ms(), reference=None)
        await self._around.save(self._trial)


async def _whole(write: Awaitable[T]) -> T:
    """Waits for a write that has begun even when cancelled: its thread cannot be stopped."""
    writing = asyncio.ensure_future(write)
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        await writing
        raise
