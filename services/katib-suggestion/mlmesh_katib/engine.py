"""The experiment engine: claims experiments, runs their trials in parallel, and ends them.

All state is in the database. A replica holds an experiment by a lease; when it dies, another (or the same, restarted)
takes it over, clears away what the dead one left running, and runs the interrupted trials again.
"""

import asyncio
import contextlib
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmesh_kit.errors import ServiceError
from mlmesh_kit.launch import WarmLauncher
from mlmesh_kit.lease import LeaseStore

from mlmesh_katib.backends import make_backend
from mlmesh_katib.config import Settings
from mlmesh_katib.editing import edit, pause
from mlmesh_katib.experiment import EarlierTrial, Experiment, conditions_after
from mlmesh_katib.experiment_run import ExperimentRun
from mlmesh_katib.jobs.conditions import parse_conditions
from mlmesh_katib.jobs.pipeline import API_VERSION as PIPELINE_API_VERSION
from mlmesh_katib.manifest import ExperimentSpec, parse_manifest
from mlmesh_katib.models import ModelKeeper
from mlmesh_katib.store import KatibStore
from mlmesh_katib.trial_name import several, split

logger = logging.getLogger(__name__)
MAX_ERRORS = 5


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
        self._runs: dict[int, ExperimentRun] = {}
        self._errors: dict[int, int] = {}
        self._wake = asyncio.Event()
        self._backend = make_backend(settings, self._launcher)
        self._root = settings.service_dir / "trials"
        self._models = ModelKeeper(settings.resolved_artifact_root, settings.max_model_bytes)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs experiments until left; then their processes are killed, to be run again by whoever comes next."""
        async with self._launcher:
            await self._launcher.warm_up()
            loop = asyncio.create_task(self._claim_forever(), name="claim experiments")
            try:
                yield
            finally:
                for run in self._runs.values():
                    run.leave()
                tasks = [loop, *self._running.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                with contextlib.suppress(ServiceError):
                    await asyncio.to_thread(self._leases.release_all, self._owner)

    def create(self, namespace: str, manifest: Mapping[str, Any], earlier: Sequence[EarlierTrial] = ()) -> Experiment:
        """Checks a manifest and adds the experiment. Blocks; call `wake` after it.

        Args:
            namespace: Of the experiment.
            manifest: Of the experiment.
            earlier: What the warm start that it asks for has found (`EarlierTrials.read`).

        Raises:
            InvalidArgument, FailedPrecondition: See `parse_manifest`.
            AlreadyExists: There is one of this name.
        """
        spec = self.check(manifest)
        return self._store.create_experiment(namespace, spec.name, manifest, earlier)

    def check(self, manifest: Mapping[str, Any]) -> ExperimentSpec:
        """Checks a manifest.

        Raises:
            InvalidArgument, FailedPrecondition: See `parse_manifest`, and the backend of its trials.
        """
        spec = parse_manifest(manifest, self._settings.max_trials)
        template = spec.template
        where = "manifest.spec.trialTemplate"
        self._backend.check(template.manifest, template.primary_container, f"{where}.trialSpec")
        if template.manifest.get("apiVersion") != PIPELINE_API_VERSION:  # the end of a run is said by its state
            kind = str(template.manifest.get("kind", ""))
            parse_conditions(kind, template.success_condition, template.failure_condition, where)
        return spec

    async def update(self, namespace: str, name: str, manifest: Mapping[str, Any], paths: Sequence[str]) -> Experiment:
        """Changes an experiment's budget or goal, while it runs or after it has ended by its budget.

        Raises:
            NotFound: There is none of this name.
            InvalidArgument, FailedPrecondition: See `edit`.
        """
        most = self._settings.max_trials
        return await self._change(namespace, name, lambda found, made: edit(found, made, manifest, paths, most))

    async def pause(self, namespace: str, name: str, *, paused: bool) -> Experiment:
        """Pauses an experiment, or takes it up again.

        Raises:
            NotFound: There is none of this name.
            FailedPrecondition: It has ended.
        """
        return await self._change(namespace, name, lambda found, _: pause(found, paused))

    def stop_early(self, trial: str, reason: str) -> bool:
        """Ends a trial that runs here as EarlyStopped; False if none of this name does.

        Args:
            trial: `TRIAL` or `NAMESPACE/TRIAL`.
            reason: For people.

        Raises:
            FailedPrecondition: Trials of this name run in several namespaces.
            InvalidArgument: See `trial_name.split`.
        """
        namespace, name = split(trial)
        found = [run for run in self._runs.values() if run.runs(name) and namespace in (None, run.experiment.namespace)]
        if len(found) > 1:
            raise several(name, [run.experiment.namespace for run in found])
        for run in found:
            run.stop_early(name, reason)
        return bool(found)

    async def _change(self, namespace: str, name: str, change: Callable[[Experiment, int], Experiment]) -> Experiment:
        changed = await asyncio.to_thread(self._store.change_experiment, namespace, name, change)
        run = self._runs.get(changed.id)
        if run is not None:
            run.change(changed, parse_manifest(changed.manifest, self._settings.max_trials))
        self._wake.set()
        return changed

    def log_path(self, experiment: Experiment, trial_name: str) -> Path:
        """Gives the file with what a trial printed."""
        return self._root / str(experiment.id) / trial_name / "log"

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
        folder = self._root / str(experiment.id)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        try:
            await asyncio.to_thread(self._models.remove, experiment)
        except ServiceError as error:  # the experiment is gone, whatever is left in the store
            logger.warning("models of %s/%s are left: %s", namespace, name, error.message)

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
            if (run := self._runs.get(held[key])) is not None:
                run.leave()
            if (task := self._running.get(held[key])) is not None:
                task.cancel()
        for experiment_id in await asyncio.to_thread(self._store.active_experiments):
            if experiment_id in self._running:
                await self._look_at(experiment_id)
                continue
            ttl = self._settings.lease_seconds
            if await asyncio.to_thread(self._leases.claim, _lease(experiment_id), self._owner, ttl):
                task = asyncio.create_task(self._run(experiment_id), name=f"experiment {experiment_id}")
                self._running[experiment_id] = task

    async def _look_at(self, experiment_id: int) -> None:
        """Takes over what another replica was asked to change."""
        run = self._runs.get(experiment_id)
        experiment = await asyncio.to_thread(self._store.get_experiment_by_id, experiment_id)
        if run is None or experiment is None:
            return
        if (experiment.paused, experiment.manifest) != (run.experiment.paused, run.experiment.manifest):
            run.change(experiment, parse_manifest(experiment.manifest, self._settings.max_trials))

    async def _run(self, experiment_id: int) -> None:
        try:
            experiment = await asyncio.to_thread(self._store.get_experiment_by_id, experiment_id)
            if experiment is not None and experiment.active:
                spec = parse_manifest(experiment.manifest, self._settings.max_trials)
                run = ExperimentRun(experiment, spec, self._store, self._backend, self._slots, self._models)
                self._runs[experiment_id] = run
                await run.run()
            self._errors.pop(experiment_id, None)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.exception("experiment %s", experiment_id)
            await self._failed(experiment_id, error)
        finally:
            self._running.pop(experiment_id, None)
            self._runs.pop(experiment_id, None)
            with contextlib.suppress(ServiceError):
                await asyncio.to_thread(self._leases.release, _lease(experiment_id), self._owner)

    async def _failed(self, experiment_id: int, error: Exception) -> None:
        """Leaves it active to be tried again with the next heartbeat; after MAX_ERRORS times it has failed."""
        self._errors[experiment_id] = self._errors.get(experiment_id, 0) + 1
        if self._errors[experiment_id] < MAX_ERRORS:
            await asyncio.sleep(1)
            return
        said = error.message if isinstance(error, ServiceError) else f"{type(error).__name__}: {error}"
        message = f"running the experiment failed {MAX_ERRORS} times, at last with: {said}"[:2000]
        with contextlib.suppress(Exception):
            experiment = await asyncio.to_thread(self._store.get_experiment_by_id, experiment_id)
            if experiment is not None:
                conditions = conditions_after(experiment.conditions, "Failed", "ExperimentFailed", message)
                await asyncio.to_thread(self._store.set_conditions, experiment_id, conditions, over=True)
        self._errors.pop(experiment_id, None)


def _lease(experiment_id: int) -> str:
    return f"experiment/{experiment_id}"
