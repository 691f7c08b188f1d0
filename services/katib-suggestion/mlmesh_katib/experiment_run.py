"""One experiment, from where it is to its end."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlmesh_kit.errors import ServiceError, Unavailable

from mlmesh_katib.algorithms import Observed
from mlmesh_katib.early_stopping import EARLY_STOPPING
from mlmesh_katib.early_stopping.base import History
from mlmesh_katib.experiment import (
    Experiment,
    Trial,
    TrialState,
    Verdict,
    best_trial,
    conditions_after,
    decide,
    now_ms,
)
from mlmesh_katib.jobs.base import JobBackend
from mlmesh_katib.manifest import ExperimentSpec
from mlmesh_katib.models import ModelKeeper
from mlmesh_katib.store import KatibStore
from mlmesh_katib.suggestion import earlier_trials, next_trials
from mlmesh_katib.trial_run import Surroundings, TrialRun

logger = logging.getLogger(__name__)
MAX_SUGGESTION_ERRORS = 3
_RETRY_SECONDS = 1.0


class ExperimentRun:
    """Runs one experiment.

    Args:
        experiment: As it is kept.
        spec: Its manifest, checked.
        store: Keeps it.
        backend: Runs its trials.
        slots: How many trials of all experiments may run at once.
        models: Keeps what its trials make.
    """

    def __init__(
        self,
        experiment: Experiment,
        spec: ExperimentSpec,
        store: KatibStore,
        backend: JobBackend,
        slots: asyncio.Semaphore,
        models: ModelKeeper,
    ) -> None:
        self.experiment = experiment
        self._spec = spec
        self._store = store
        self._backend = backend
        self._slots = slots
        self._models = models
        self._trials: dict[int, Trial] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._runs: dict[str, TrialRun] = {}
        self._histories: dict[str, History] = {}
        self._seen: dict[str, int] = {}
        self._settings: Mapping[str, str] = experiment.settings
        self._prior: Sequence[Observed] = ()
        self._best: int | None = None
        self._exhausted = False
        self._errors = 0
        self._leaving = False
        self._changed = asyncio.Event()

    def change(self, experiment: Experiment, spec: ExperimentSpec) -> None:
        """Takes over a budget, a goal or a pause that was changed while it runs."""
        self.experiment = replace(self.experiment, manifest=experiment.manifest, paused=experiment.paused)
        self._spec = spec
        self._exhausted = False
        self._changed.set()

    def leave(self) -> None:
        """Says that being cancelled means that someone else will go on: jobs that can be found again go on."""
        self._leaving = True

    def runs(self, trial_name: str) -> bool:
        """Tells whether a trial runs here."""
        return trial_name in self._runs

    def stop_early(self, trial_name: str, reason: str) -> None:
        """Ends a trial that runs here as EarlyStopped."""
        self._runs[trial_name].stop_early(reason)

    async def run(self) -> None:
        """Runs to the end, or until cancelled (then the trials' jobs are killed)."""
        try:
            await self._recover()
            while (verdict := self._verdict()) is None:
                await self._note_best()
                verdict = await self._fill()
                if verdict is not None:
                    break
                await self._wait()
            await self._stop_trials()
            await self._end(verdict)
        finally:
            await self._stop_trials()

    async def _note_best(self) -> None:
        best = best_trial(self._spec, list(self._trials.values()))
        if best is not None and best.number != self._best:
            await asyncio.to_thread(self._store.set_best_trial, self.experiment.id, best.number)
            self._best = best.number

    def _verdict(self) -> Verdict | None:
        return decide(self._spec, list(self._trials.values()), exhausted=self._exhausted)

    async def _wait(self) -> None:
        """Waits for the end of a trial, or a change."""
        changed = asyncio.create_task(self._changed.wait())
        try:
            # With nothing that runs and nothing to wait for, the algorithm is asked again shortly.
            idle = not self._tasks and not self.experiment.paused
            await asyncio.wait(
                {changed, *self._tasks.values()},
                timeout=_RETRY_SECONDS if idle else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            changed.cancel()
        self._changed.clear()
        for number in [number for number, task in self._tasks.items() if task.done()]:
            task = self._tasks.pop(number)
            self._runs.pop(self._trials[number].name, None)
            try:
                task.result()
            except Unavailable as error:
                logger.warning("trial %s: %s", self._trials[number].name, error.message)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _recover(self) -> None:
        if self._spec.warm_start is not None:
            earlier = await asyncio.to_thread(self._store.earlier_trials, self.experiment.id)
            self._prior = earlier_trials(self._spec, earlier)
        for trial in await asyncio.to_thread(self._store.trials, self.experiment.id):
            self._trials[trial.number] = trial
            await self._read_reports(trial)
        if not any(condition.type == "Running" and condition.holds for condition in self.experiment.conditions):
            conditions = conditions_after(
                self.experiment.conditions, "Running", "ExperimentRunning", "Experiment is running"
            )
            self.experiment = replace(self.experiment, conditions=conditions)
            await asyncio.to_thread(self._store.set_conditions, self.experiment.id, conditions, over=False)

    async def _fill(self) -> Verdict | None:
        """Starts trials until `parallel` of them run: those that were made before, then new ones."""
        for trial in list(self._trials.values()):
            # One that was running when the service died goes on even where the experiment is paused.
            waits = trial.state is TrialState.CREATED and not self.experiment.paused
            if (waits or trial.state is TrialState.RUNNING) and trial.number not in self._tasks:
                if len(self._tasks) >= self._spec.parallel and trial.state is TrialState.CREATED:
                    break
                self._begin(trial)
        if self.experiment.paused or self._exhausted:
            return None
        waiting = sum(not trial.state.is_final for trial in self._trials.values())
        wanted = min(self._spec.parallel - waiting, self._spec.max_trials - len(self._trials))
        # With a seed, suggestions must not hang on how many trials happened to end at once: one is asked for at a time.
        step = 1 if "random_state" in self._spec.settings else max(wanted, 1)
        for _ in range(0, wanted, step):
            made = len(self._trials)
            verdict = await self._suggest(step)
            if verdict is not None or len(self._trials) == made:
                return verdict
        return None

    async def _suggest(self, wanted: int) -> Verdict | None:
        known = list(self._trials.values())
        reports = {
            name: tuple((float(step), loss) for step, loss in enumerate(history.losses, 1))
            for name, history in self._histories.items()
        }
        try:
            answer = await asyncio.to_thread(
                next_trials, self._spec, known, wanted, self._settings, reports, self._prior
            )
        except Exception as error:
            self._errors += 1
            said = error.message if isinstance(error, ServiceError) else f"{type(error).__name__}: {error}"
            logger.exception("algorithm %s of experiment %s", self._spec.algorithm, self.experiment.id)
            if self._errors < MAX_SUGGESTION_ERRORS:
                return None
            text = f"algorithm {self._spec.algorithm} failed {self._errors} times, at last with: {said}"
            return Verdict(False, "ExperimentFailed", text[:2000])
        self._errors = 0
        suggestions = list(answer.suggestions)[:wanted]
        settings = {**self._settings, **answer.settings}
        self._exhausted = len(suggestions) < wanted and not answer.wait
        names = {trial.name for trial in known}
        made = []
        for number, suggestion in enumerate(suggestions, len(known) + 1):
            name = suggestion.name or f"{self.experiment.name}-{number}"
            if name in names:
                name = f"{self.experiment.name}-{number}"
            names.add(name)
            conditions = conditions_after((), "Created", "TrialCreated", "Trial is created")
            made.append(Trial(number, name, dict(suggestion.assignments), conditions, labels=dict(suggestion.labels)))
        if made or settings != self._settings:
            await asyncio.to_thread(self._store.add_trials, self.experiment.id, made, settings)
        self._settings = settings
        for trial in made:
            self._trials[trial.number] = trial
            self._begin(trial)
        return None

    def _begin(self, trial: Trial) -> None:
        self._tasks[trial.number] = asyncio.create_task(self._run_trial(trial), name=trial.name)

    async def _run_trial(self, trial: Trial) -> None:
        async with self._slots:
            around = Surroundings(
                self.experiment,
                self._spec,
                self._store,
                self._backend,
                self._save,
                self._reported,
                lambda: self._leaving,
                self._models,
            )
            self._runs[trial.name] = run = TrialRun(trial, around)
            await run.run()

    async def _read_reports(self, trial: Trial) -> bool:
        """Reads what a trial has reported of the objective since the last time; tells whether that was anything."""
        objective = self._spec.objective
        after = self._seen.get(trial.name, 0)
        namespace = self.experiment.namespace
        found = await asyncio.to_thread(self._store.reports, namespace, trial.name, objective.metric, after)
        if trial.number in self._trials and not trial.state.is_final and not found:
            return False
        old = self._histories.get(trial.name, History(trial.name, ()))
        values = [objective.number(log.value) for _, log in found]
        losses = [objective.loss(value) for value in values if value is not None]
        ended = trial.state is TrialState.SUCCEEDED
        self._histories[trial.name] = replace(old, losses=(*old.losses, *losses), ended=ended, new=len(losses))
        if found:
            self._seen[trial.name] = found[-1][0]
        return bool(losses)

    async def _reported(self, trial: Trial) -> str | None:
        if not await self._read_reports(trial) or self._spec.early_stopping is None:
            return None
        rule = EARLY_STOPPING[self._spec.early_stopping]
        others = [history for name, history in self._histories.items() if name != trial.name and history.losses]
        mine = self._histories[trial.name]
        return await asyncio.to_thread(rule.decide, self._spec.early_stopping_settings, mine, others)

    async def _save(self, trial: Trial) -> None:
        if trial.state.is_final and trial.ended_order is None:
            ended = [other.ended_order or 0 for other in self._trials.values()]
            trial = replace(trial, ended_order=max(ended, default=0) + 1)
        if trial.state is TrialState.CREATED:  # it runs again from its beginning
            self._histories.pop(trial.name, None)
        # A write that has begun is waited for: its thread cannot be stopped, and what follows must come after it.
        writing = asyncio.ensure_future(asyncio.to_thread(self._store.save_trial, self.experiment.id, trial))
        self._trials[trial.number] = replace(self._trials[trial.number], ended_order=trial.ended_order)
        try:
            await asyncio.shield(writing)
        finally:
            if not writing.done():
                await writing
        self._trials[trial.number] = trial
        if trial.state.is_final:
            await self._read_reports(trial)

    async def _stop_trials(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        self._runs.clear()

    async def _end(self, verdict: Verdict) -> None:
        for trial in list(self._trials.values()):
            if not trial.state.is_final:  # the goal was reached while it ran
                killed = trial.enter(TrialState.KILLED, "Trial is killed: the experiment is over")
                await self._save(replace(killed, completed_ms=now_ms(), reference=None))
        await self._note_best()
        kind = "Succeeded" if verdict.succeeded else "Failed"
        conditions = conditions_after(self.experiment.conditions, kind, verdict.reason, verdict.message)
        await asyncio.to_thread(self._store.set_conditions, self.experiment.id, conditions, over=True)
