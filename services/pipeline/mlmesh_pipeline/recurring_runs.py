"""Recurring runs: created, enabled, disabled, and fired. See docs/decisions/0036."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, ServiceError

from mlmesh_pipeline.experiments import MAX_DESCRIPTION, check_text
from mlmesh_pipeline.recurring.placeholders import Firing, fill
from mlmesh_pipeline.recurring.schedule import NEVER, Schedule, Trigger
from mlmesh_pipeline.resources import Experiment, PipelineVersion, Problem, RecurringRun, StorageState, now
from mlmesh_pipeline.runs import MAX_SERVICE_ACCOUNT, NewRun, Runs
from mlmesh_pipeline.store import ExperimentStore, PipelineStore
from mlmesh_pipeline.store.recurring_runs import RecurringRunStore, Taken, TooMany, claim

MAX_CONCURRENCY = 10
MAX_PER_NAMESPACE = 1000
_BATCH = 50
_NAME_CHARACTERS = 40
_MICROS = 1_000_000


@dataclass(frozen=True)
class NewRecurringRun:
    """What a client asks for.

    Args:
        run: What its runs are to be.
        trigger: When.
        max_concurrency: How many of its runs may be active at a time.
        no_catchup: Whether one run stands for all times that were missed.
        enabled: Whether it fires.
        follows: Whether each run takes the pipeline's latest version.
    """

    run: NewRun
    trigger: Trigger
    max_concurrency: int
    no_catchup: bool
    enabled: bool
    follows: bool


class RecurringRuns:
    """Creates recurring runs, and makes their runs.

    Args:
        store: Where they are.
        runs: Makes runs.
        experiments: Where experiments are.
        pipelines: Where pipelines are.
        zone: Where cron's clock hangs.
        wake: Called when a time to fire may have changed.
    """

    def __init__(
        self,
        store: RecurringRunStore,
        runs: Runs,
        *,
        experiments: ExperimentStore,
        pipelines: PipelineStore,
        zone: str,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._runs = runs
        self._experiments = experiments
        self._pipelines = pipelines
        self._zone = zone
        self._wake = wake

    def create(
        self, experiment: Experiment, new: NewRecurringRun, spec: dict[str, Any], version: PipelineVersion | None
    ) -> RecurringRun:
        """Checks a recurring run whole, as if it fired now, and creates it.

        Args:
            experiment: What its runs belong to.
            new: What was asked for.
            spec: The pipeline.
            version: Where the pipeline came from; None: with the request.

        Raises:
            InvalidArgument: The trigger, the pipeline, a parameter or a name is wrong.
            FailedPrecondition: The pipeline cannot run on this machine; or the experiment is archived.
            ResourceExhausted: The namespace has 1,000.
        """
        check_text(new.run.display_name, "recurring_run.display_name")
        check_text(new.run.description, "recurring_run.description", required=False, limit=MAX_DESCRIPTION)
        check_text(new.run.service_account, "recurring_run.service_account", required=False, limit=MAX_SERVICE_ACCOUNT)
        if not 1 <= new.max_concurrency <= MAX_CONCURRENCY:
            message = f"must be 1 to {MAX_CONCURRENCY}, not {new.max_concurrency}"
            raise InvalidArgument(message, field="recurring_run.max_concurrency")
        if experiment.storage_state == StorageState.ARCHIVED:
            raise FailedPrecondition(f"experiment {experiment.display_name!r} is archived; unarchive it first")
        created_at = now()
        schedule = Schedule(new.trigger, self._zone)
        trial = Firing(created_at // _MICROS, created_at // _MICROS, 1, str(uuid.uuid4()))
        root = self._runs.check(spec, fill(new.run.parameters, trial), new.run.pipeline_root)
        recurring = RecurringRun(
            recurring_run_id=str(uuid.uuid4()),
            namespace=experiment.namespace,
            experiment_id=experiment.experiment_id,
            display_name=new.run.display_name,
            description=new.run.description,
            parameters=new.run.parameters,
            trigger=new.trigger,
            pipeline_id=version.pipeline_id if version else "",
            version_id=version.version_id if version and not new.follows else "",
            pipeline_root=root,
            service_account=new.run.service_account,
            creator=new.run.creator,
            plugins_input=new.run.plugins_input,
            max_concurrency=new.max_concurrency,
            no_catchup=new.no_catchup,
            enabled=new.enabled,
            created_at=created_at,
            next_at=schedule.next(0, created_at // _MICROS),
        )
        made = self._store.create(recurring, None if version else spec, MAX_PER_NAMESPACE)
        self._wake()
        return made

    def enable(self, recurring: RecurringRun) -> None:
        """Lets a recurring run fire; twice is once. What it missed meanwhile is made up for, if it catches up.

        Raises:
            FailedPrecondition: Its experiment is archived.
        """
        try:
            experiment = self._experiments.get(recurring.experiment_id)
        except NotFound:
            experiment = None
        if experiment is not None and experiment.storage_state == StorageState.ARCHIVED:
            raise FailedPrecondition(f"experiment {experiment.display_name!r} is archived; unarchive it first")
        schedule = Schedule(recurring.trigger, self._zone)
        next_at = schedule.next(recurring.last_scheduled, recurring.created_at // _MICROS)
        self._store.set_enabled(recurring.recurring_run_id, True, next_at)
        self._wake()

    def disable(self, recurring: RecurringRun) -> None:
        """Keeps a recurring run from firing; its runs go on."""
        self._store.set_enabled(recurring.recurring_run_id, False, recurring.next_at)

    def fire(self) -> int:
        """Makes the runs that are due, until none is or all that are left must wait.

        Returns:
            When to call it again: seconds since the epoch; the time before now if something waits for a run to end.
        """
        waiting: set[str] = set()
        while True:
            at = now() // _MICROS
            due = [one for one in self._store.due(at, _BATCH + len(waiting)) if one.recurring_run_id not in waiting]
            if not due:
                return at if waiting else self._store.next_at(at)
            for recurring in due:
                try:
                    self._fire(recurring, at)
                except TooMany:
                    waiting.add(recurring.recurring_run_id)
                except Taken:
                    pass  # it is read again
                except InvalidArgument as error:  # a time zone that is no longer known
                    self._store.pass_over(recurring, recurring.last_scheduled, NEVER, _problem(error))

    def _fire(self, recurring: RecurringRun, at: int) -> None:
        schedule = Schedule(recurring.trigger, self._zone)
        created = recurring.created_at // _MICROS
        scheduled = schedule.due(recurring.last_scheduled, created, at, catch_up=not recurring.no_catchup)
        if scheduled is None:  # its time has moved: the zone's rules or the setting are others now
            self._store.set_next(recurring, schedule.next(recurring.last_scheduled, created))
            return
        next_at = schedule.next(scheduled, created)
        run_id = str(uuid.uuid4())
        firing = Firing(scheduled, at, recurring.last_index + 1, run_id)
        try:
            experiment = self._experiments.get(recurring.experiment_id)
            spec, version = self._pipeline(recurring)
            new = NewRun(
                display_name=_run_name(recurring),
                parameters=fill(recurring.parameters, firing),
                description=recurring.description,
                pipeline_root=recurring.pipeline_root,
                service_account=recurring.service_account,
                creator=recurring.creator,
                plugins_input=recurring.plugins_input,
                run_id=run_id,
                recurring_run_id=recurring.recurring_run_id,
                scheduled_at=scheduled * _MICROS,
            )
            self._runs.create(
                experiment,
                new,
                spec,
                version,
                claim=lambda connection: claim(connection, recurring, scheduled, next_at),
            )
        except (NotFound, InvalidArgument, FailedPrecondition, ResourceExhausted) as error:
            self._store.pass_over(recurring, scheduled, next_at, _problem(error))

    def _pipeline(self, recurring: RecurringRun) -> tuple[dict[str, Any], PipelineVersion | None]:
        if recurring.spec_digest:
            return self._store.spec(recurring.spec_digest), None
        version = self._pipelines.get_version(recurring.pipeline_id, recurring.version_id)
        return version.spec, version


def _problem(error: ServiceError) -> Problem:
    return Problem(int(error.code.value[0]), f"no run could be made: {error.message}")


def _run_name(recurring: RecurringRun) -> str:
    """Names a run as KFP's controller does: the recurring run's name, the number, and the FNV-1a hash of both."""
    name = re.sub(r"[^a-z0-9]+", "-", recurring.display_name.lower()).strip("-")[:_NAME_CHARACTERS] or "recurring-run"
    text = f"{name}-{recurring.recurring_run_id[:5]}-{recurring.last_index + 1}"
    found = 0x811C9DC5
    for byte in text.encode():
        found = (found ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{text}-{found}"
