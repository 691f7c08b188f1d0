"""The experiment engine: claims experiments, runs their trials in parallel, and ends them.

All state is in the database. A replica holds an experiment by a lease; when it dies, another (or the same, restarted)
takes it over, clears away what the dead one left running, and runs the interrupted trials again.
"""

import asyncio
import contextlib
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlmesh_kit.errors import ServiceError
from mlmesh_kit.launch import ExitStatus, Process, WarmLauncher, sweep
from mlmesh_kit.lease import LeaseStore

from mlmesh_katib.collector import CollectionTimeout
from mlmesh_katib.config import Settings
from mlmesh_katib.experiment import (
    Experiment,
    Trial,
    TrialState,
    Verdict,
    conditions_after,
    decide,
    now_ms,
)
from mlmesh_katib.manifest import ExperimentSpec, parse_manifest
from mlmesh_katib.objective import summarize
from mlmesh_katib.runner import TrialRunner
from mlmesh_katib.store import KatibStore, MetricLog
from mlmesh_katib.suggestion import next_assignments

logger = logging.getLogger(__name__)


class ExperimentEngine:
    """Runs experiments.

    Args:
        store: Keeps them.
        leases: Which replica runs which.
        settings: Of the service.
    """

    def __init__(self, store: KatibStore, leases: LeaseStore, settings: Settings) -> None:
        self._store = store
        self._leases = leases
        self._settings = settings
        self._owner = uuid.uuid4().hex
        self._launcher = WarmLauncher(settings.preload_modules)
        self._slots = asyncio.Semaphore(settings.max_running_trials)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self.runner = TrialRunner(self._launcher, settings)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs experiments until left; then their processes are killed, to be run again by whoever comes next."""
        async with self._launcher:
            await self._launcher.warm_up()
            loop = asyncio.create_task(self._claim_forever(), name="claim experiments")
            try:
                yield
            finally:
                tasks = [loop, *self._running.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                with contextlib.suppress(ServiceError):
                    await asyncio.to_thread(self._leases.release_all, self._owner)

    def create(self, namespace: str, manifest: Mapping[str, Any]) -> Experiment:
        """Checks a manifest and adds the experiment. Blocks; call `wake` after it.

        Raises:
            InvalidArgument, FailedPrecondition: See `parse_manifest`.
            AlreadyExists: There is one of this name.
        """
        spec = parse_manifest(manifest, self._settings.max_trials)
        return self._store.create_experiment(namespace, spec.name, manifest)

    def wake(self) -> None:
        """Says that there may be work, from the loop's thread."""
        self._wake.set()

    async def delete(self, namespace: str, name: str) -> None:
        """Removes an experiment and kills its trials.

        Raises:
            NotFound: There is none of this name.
        """
        experiment = await asyncio.to_thread(self._store.delete_experiment, namespace, name)
        task = self._running.get(experiment.id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        folder = self.runner.folder(experiment, "")
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _claim_forever(self) -> None:
        beat = self._settings.lease_seconds / 3
        while True:
            self._wake.clear()
            try:
                await self._claim_once()
            except ServiceError as error:
                logger.warning("claiming experiments: %s", error.message)
            except Exception:
                logger.exception("claiming experiments")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(beat):
                    await self._wake.wait()

    async def _claim_once(self) -> None:
        held = {_lease(experiment_id): experiment_id for experiment_id in self._running}
        kept = await asyncio.to_thread(self._leases.renew, list(held), self._owner, self._settings.lease_seconds)
        for key in held.keys() - kept:  # another replica thinks that we are dead
            logger.warning("lost the lease of experiment %s", held[key])
            if (task := self._running.get(held[key])) is not None:
                task.cancel()
        for experiment_id in await asyncio.to_thread(self._store.active_experiments):
            if experiment_id in self._running:
                continue
            ttl = self._settings.lease_seconds
            if await asyncio.to_thread(self._leases.claim, _lease(experiment_id), self._owner, ttl):
                task = asyncio.create_task(self._run(experiment_id), name=f"experiment {experiment_id}")
                self._running[experiment_id] = task

    async def _run(self, experiment_id: int) -> None:
        try:
            experiment = await asyncio.to_thread(self._store.get_experiment_by_id, experiment_id)
            if experiment is not None and experiment.active:
                spec = parse_manifest(experiment.manifest, self._settings.max_trials)
                await _ExperimentRun(experiment, spec, self._store, self.runner, self._slots).run()
        except asyncio.CancelledError:
            raise
        except Exception:
            # Left active: it is tried again with the next heartbeat, perhaps by another replica.
            logger.exception("experiment %s", experiment_id)
            await asyncio.sleep(1)
        finally:
            self._running.pop(experiment_id, None)
            with contextlib.suppress(ServiceError):
                await asyncio.to_thread(self._leases.release, _lease(experiment_id), self._owner)


def _lease(experiment_id: int) -> str:
    return f"experiment/{experiment_id}"


class _ExperimentRun:
    """One experiment, from where it is to its end."""

    def __init__(
        self,
        experiment: Experiment,
        spec: ExperimentSpec,
        store: KatibStore,
        runner: TrialRunner,
        slots: asyncio.Semaphore,
    ) -> None:
        self._experiment = experiment
        self._spec = spec
        self._store = store
        self._runner = runner
        self._slots = slots
        self._trials: dict[int, Trial] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._exhausted = False

    async def run(self) -> None:
        """Runs to the end, or until cancelled (then the trials' processes are killed)."""
        try:
            await self._recover()
            while (verdict := self._verdict()) is None:
                await self._fill()
                if self._tasks:
                    done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                    for number in [number for number, task in self._tasks.items() if task in done]:
                        self._tasks.pop(number).result()
            await self._stop_trials()
            await self._end(verdict)
        finally:
            await self._stop_trials()

    def _verdict(self) -> Verdict | None:
        return decide(self._spec, list(self._trials.values()), exhausted=self._exhausted)

    async def _recover(self) -> None:
        for trial in await asyncio.to_thread(self._store.trials, self._experiment.id):
            found = trial
            if trial.state is TrialState.RUNNING:
                if trial.pid is not None and trial.process_started is not None:
                    await asyncio.to_thread(sweep, trial.pid, trial.process_started)
                found = replace(
                    trial.enter(TrialState.CREATED, "Trial was interrupted and will run again"),
                    pid=None,
                    process_started=None,
                )
                await asyncio.to_thread(self._store.save_trial, self._experiment.id, found)
            self._trials[found.number] = found
        if not any(condition.type == "Running" for condition in self._experiment.conditions):
            conditions = conditions_after(
                self._experiment.conditions, "Running", "ExperimentRunning", "Experiment is running"
            )
            self._experiment = replace(self._experiment, conditions=conditions)
            await asyncio.to_thread(self._store.set_conditions, self._experiment.id, conditions, over=False)

    async def _fill(self) -> None:
        """Starts trials until `parallel` of them run: those that were made before, then new ones."""
        for trial in list(self._trials.values()):
            if trial.state is TrialState.CREATED and trial.number not in self._tasks:
                if len(self._tasks) >= self._spec.parallel:
                    return
                self._begin(trial)
        wanted = min(self._spec.parallel - len(self._tasks), self._spec.max_trials - len(self._trials))
        if wanted <= 0 or self._exhausted:
            return
        known = list(self._trials.values())
        suggested = await asyncio.to_thread(next_assignments, self._spec, known, wanted)
        self._exhausted = len(suggested) < wanted
        made = [self._make(number, values) for number, values in enumerate(suggested, len(self._trials) + 1)]
        if made:
            await asyncio.to_thread(self._store.add_trials, self._experiment.id, made)
        for trial in made:
            self._trials[trial.number] = trial
            self._begin(trial)

    def _make(self, number: int, assignments: dict[str, str]) -> Trial:
        conditions = conditions_after((), "Created", "TrialCreated", "Trial is created")
        return Trial(number, f"{self._experiment.name}-{number}", assignments, conditions)

    def _begin(self, trial: Trial) -> None:
        self._tasks[trial.number] = asyncio.create_task(self._run_trial(trial), name=trial.name)

    async def _run_trial(self, trial: Trial) -> None:
        async with self._slots:
            process: Process | None = None
            try:
                process = await self._runner.start(self._experiment, self._spec, trial)
                trial = replace(
                    trial.enter(TrialState.RUNNING, "Trial is running"),
                    attempts=trial.attempts + 1,
                    pid=process.pid,
                    process_started=process.started,
                    started_ms=now_ms(),
                )
                await self._save(trial)
                ended = await process.wait()
            except asyncio.CancelledError:
                if process is not None:
                    process.kill()
                raise
            if ended.lost:  # the launcher was killed, not the trial: run it again
                await self._save(trial.enter(TrialState.CREATED, "Trial was interrupted and will run again"))
                return
            await self._finish(trial, ended)

    async def _finish(self, trial: Trial, ended: ExitStatus) -> None:
        logs: list[MetricLog] = []
        problem = f"the trial printed no number as {self._spec.objective.metric}"
        try:
            logs = await asyncio.to_thread(self._runner.collect, self._experiment, self._spec, trial)
        except CollectionTimeout as error:
            problem = str(error)
        observation = tuple(summarize([(log.name, log.value) for log in logs]))
        trial = replace(trial, observation=observation, completed_ms=now_ms(), pid=None, process_started=None)
        if not ended.ok:
            trial = trial.enter(TrialState.FAILED, f"Trial has failed: it {ended.describe()}")
        elif self._spec.objective.value(observation) is None:
            trial = trial.enter(
                TrialState.METRICS_UNAVAILABLE,
                f"Metrics are not available: {problem}",
            )
        else:
            trial = trial.enter(TrialState.SUCCEEDED, "Trial has succeeded")
        await self._save(trial, logs)

    async def _save(self, trial: Trial, logs: Sequence[MetricLog] = ()) -> None:
        # What is not written yet must not count: the experiment would end, and cancel the writing of its last trial.
        # A write that has begun is waited for: its thread cannot be stopped, and what follows must come after it.
        writing = asyncio.ensure_future(
            asyncio.to_thread(self._store.save_trial, self._experiment.id, trial, logs),
        )
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await writing
            self._trials[trial.number] = trial
            raise
        self._trials[trial.number] = trial

    async def _stop_trials(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _end(self, verdict: Verdict) -> None:
        for trial in list(self._trials.values()):
            if not trial.state.is_final:  # the goal was reached while it ran
                killed = trial.enter(TrialState.KILLED, "Trial is killed: the experiment is over")
                await self._save(replace(killed, completed_ms=now_ms(), pid=None, process_started=None))
        kind = "Succeeded" if verdict.succeeded else "Failed"
        conditions = conditions_after(self._experiment.conditions, kind, verdict.reason, verdict.message)
        await asyncio.to_thread(self._store.set_conditions, self._experiment.id, conditions, over=True)
