"""Runs in the database."""

from collections.abc import Callable, Sequence
from typing import Any

from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import FailedPrecondition, NotFound
from sqlalchemy import Column, Connection, Engine, Row, delete, exists, insert, select, update

from mlmesh_pipeline.listing import ListQuery, Page
from mlmesh_pipeline.resources import Event, Problem, Run, RuntimeState, StorageState, Task, now
from mlmesh_pipeline.store.codec import dump, dump_problem, load, load_problem
from mlmesh_pipeline.store.fence import Fence, check_fence
from mlmesh_pipeline.store.listing import list_page
from mlmesh_pipeline.store.specs import get_spec, get_specs, put_spec, sizes_of
from mlmesh_pipeline.store.tasks import insert_tasks, reopen_tasks
from mlmesh_pipeline.tables import artifacts, cache, events, experiments, leases, outbox, runs

_FIELDS = {
    "id": runs.c.run_id,
    "run_id": runs.c.run_id,
    "name": runs.c.display_name,
    "display_name": runs.c.display_name,
    "description": runs.c.description,
    "created_at": runs.c.created_at,
    "scheduled_at": runs.c.scheduled_at,
    "recurring_run_id": runs.c.recurring_run_id,
    "finished_at": runs.c.finished_at,
    "state": runs.c.state,
    "status": runs.c.state,
    "storage_state": runs.c.storage_state,
    "experiment_id": runs.c.experiment_id,
    "namespace": runs.c.namespace,
    "service_account": runs.c.service_account,
    "pipeline_id": runs.c.pipeline_id,
    "pipeline_version_id": runs.c.version_id,
}
ACTIVE = [RuntimeState.PENDING.value, RuntimeState.RUNNING.value, RuntimeState.CANCELING.value]
_ENDED_AT_ONCE = 100


class RunStore:
    """Runs.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        run: Run,
        spec: dict[str, Any],
        claim: Callable[[Connection], None] | None = None,
        reused: Sequence[Task] = (),
    ) -> Run:
        """Adds a run, PENDING, with its specification.

        Args:
            run: It; its digest is not looked at.
            spec: The pipeline.
            claim: Called first in the transaction; what it raises comes through, and there is no run.
            reused: Tasks that it begins with, parents before children.
        """

        def write(connection: Connection) -> str:
            if claim is not None:
                claim(connection)
            digest = put_spec(connection, spec)
            connection.execute(
                insert(runs).values(
                    run_id=run.run_id,
                    namespace=run.namespace,
                    experiment_id=run.experiment_id,
                    display_name=run.display_name,
                    description=run.description,
                    storage_state=run.storage_state.value,
                    pipeline_id=run.pipeline_id,
                    version_id=run.version_id,
                    pipeline_name=run.pipeline_name,
                    spec_digest=digest,
                    parameters=dump(run.parameters),
                    pipeline_root=run.pipeline_root,
                    service_account=run.service_account,
                    creator=run.creator,
                    created_at=run.created_at,
                    finished_at=0,
                    state=run.state.value,
                    problem="",
                    plugins_input=dump(run.plugins_input),
                    recurring_run_id=run.recurring_run_id,
                    scheduled_at=run.scheduled_at or run.created_at,
                    rerun_of=run.rerun_of,
                )
            )
            insert_tasks(connection, reused)
            connection.execute(
                update(experiments)
                .where(experiments.c.experiment_id == run.experiment_id)
                .values(last_run_created_at=run.created_at)
            )
            _event(connection, run.run_id, run.state, None)
            return digest

        run_transaction(self._engine, write)
        return self.get(run.run_id)

    def get(self, run_id: str) -> Run:
        """Gives a run.

        Raises:
            NotFound: There is none of this id.
        """
        with read(self._engine) as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).first()
        if row is None:
            raise NotFound("run", run_id)
        return run_of(row)

    def spec(self, digest: str) -> dict[str, Any]:
        """Gives a specification by its digest."""
        with read(self._engine) as connection:
            return get_spec(connection, digest)

    def specs(self, digests: set[str]) -> dict[str, dict[str, Any]]:
        """Gives specifications by digest."""
        with read(self._engine) as connection:
            return get_specs(connection, digests)

    def history(self, run_ids: list[str]) -> dict[str, list[Event]]:
        """Gives the states of runs over time."""
        found: dict[str, list[Event]] = {run_id: [] for run_id in run_ids}
        with read(self._engine) as connection:
            rows = connection.execute(
                select(events).where(events.c.run_id.in_(run_ids), events.c.task_id == "").order_by(events.c.event_id)
            )
            for row in rows:
                found[row.run_id].append(Event(row.at, "", RuntimeState(row.state), load_problem(row.problem)))
        return found

    def page(self, namespace: str, experiment_id: str, query: ListQuery) -> Page[Run]:
        """Lists the runs of a namespace, or of one of its experiments."""
        where: dict[Column[Any], str] = {runs.c.namespace: namespace}
        if experiment_id:
            where[runs.c.experiment_id] = experiment_id

        with read(self._engine) as connection:
            return list_page(
                connection,
                runs,
                _FIELDS,
                key=runs.c.run_id,
                where=where,
                query=query,
                make=run_of,
                weigh=lambda rows: sizes_of(connection, ["" if row.version_id else row.spec_digest for row in rows]),
            )

    def set_storage(self, run_id: str, state: StorageState) -> None:
        """Archives or restores a run."""
        run_transaction(
            self._engine,
            lambda connection: connection.execute(
                update(runs).where(runs.c.run_id == run_id).values(storage_state=state.value)
            ),
        )

    def ask_to_cancel(self, run_id: str) -> RuntimeState:
        """Makes an active run CANCELING; gives the state it has then.

        Raises:
            FailedPrecondition: It has ended.
        """

        def write(connection: Connection) -> RuntimeState:
            state = _state(connection, run_id)
            if state.is_final:
                raise FailedPrecondition(f"run {run_id!r} has ended ({state}); only an active run can be terminated")
            if state != RuntimeState.CANCELING:
                _set_state(connection, run_id, RuntimeState.CANCELING, None)
            return RuntimeState.CANCELING

        return run_transaction(self._engine, write)

    def reopen(self, run_id: str, choose: Callable[[list[Task]], set[str]]) -> None:
        """Makes a run that failed or was canceled PENDING again, with some of its tasks.

        Args:
            run_id: Which.
            choose: Given its tasks, gives the ids of those that are to be run anew.

        Raises:
            FailedPrecondition: It did not fail, or is archived.
        """

        def write(connection: Connection) -> None:
            state = _state(connection, run_id)
            if state not in {RuntimeState.FAILED, RuntimeState.CANCELED}:
                raise FailedPrecondition(f"run {run_id!r} is {state}; only a failed or canceled run can be retried")
            storage = connection.execute(select(runs.c.storage_state).where(runs.c.run_id == run_id)).scalar()
            if storage == StorageState.ARCHIVED.value:
                raise FailedPrecondition(f"run {run_id!r} is archived; unarchive it first")
            reopen_tasks(connection, run_id, choose)
            _set_state(connection, run_id, RuntimeState.PENDING, None)
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(finished_at=0))

        run_transaction(self._engine, write)

    def set_state(self, run_id: str, state: RuntimeState, problem: Problem | None, fence: Fence) -> RuntimeState:
        """Changes the state of a run that we drive; gives the state it has then: one that is to be canceled stays so
        until it has ended.

        Raises:
            LostLease: Another service drives it now.
        """

        def write(connection: Connection) -> RuntimeState:
            check_fence(connection, fence)
            if not state.is_final and _state(connection, run_id) == RuntimeState.CANCELING:
                return RuntimeState.CANCELING
            _set_state(connection, run_id, state, problem)
            connection.execute(insert(outbox).values(run_id=run_id, task_id="", created_at=now(), last_error=""))
            return state

        return run_transaction(self._engine, write)

    def state(self, run_id: str) -> RuntimeState | None:
        """Gives the state of a run; None where it was deleted."""
        with read(self._engine) as connection:
            found = connection.execute(select(runs.c.state).where(runs.c.run_id == run_id)).scalar()
        return RuntimeState(found) if found else None

    def unattended(self, limit: int) -> list[str]:
        """Lists active runs that nobody holds a lease on, oldest first; those that are only to be ended do not count
        for the limit, so that they need not wait for others to end.
        """
        live = exists().where(leases.c.key == "run/" + runs.c.run_id)
        free = select(runs.c.run_id).where(~live).order_by(runs.c.created_at)
        canceling = free.where(runs.c.state == RuntimeState.CANCELING.value).limit(_ENDED_AT_ONCE)
        others = free.where(runs.c.state.in_(ACTIVE), runs.c.state != RuntimeState.CANCELING.value).limit(limit)
        with read(self._engine) as connection:
            return [*connection.execute(canceling).scalars(), *connection.execute(others).scalars()]

    def canceling(self, run_ids: list[str]) -> set[str]:
        """Gives those of the runs that are to be canceled, or are gone."""
        with read(self._engine) as connection:
            rows = connection.execute(select(runs.c.run_id, runs.c.state).where(runs.c.run_id.in_(run_ids))).all()
        states = {row.run_id: row.state for row in rows}
        return {run_id for run_id in run_ids if states.get(run_id, "CANCELING") == RuntimeState.CANCELING.value}

    def delete(self, run_id: str) -> None:
        """Deletes a run with its tasks; its artifacts stay where they are."""

        def write(connection: Connection) -> None:
            for table in (artifacts, cache, outbox):
                connection.execute(delete(table).where(table.c.run_id == run_id))
            connection.execute(delete(runs).where(runs.c.run_id == run_id))

        run_transaction(self._engine, write)

    def set_contexts(self, run_id: str, pipeline_context_id: int, run_context_id: int) -> None:
        """Keeps the ids that the metadata store gave."""
        run_transaction(
            self._engine,
            lambda connection: connection.execute(
                update(runs)
                .where(runs.c.run_id == run_id)
                .values(pipeline_context_id=pipeline_context_id, run_context_id=run_context_id)
            ),
        )


def _state(connection: Connection, run_id: str) -> RuntimeState:
    """Gives the state of a run, which nobody else changes until the transaction ends."""
    found = connection.execute(select(runs.c.state).where(runs.c.run_id == run_id).with_for_update()).scalar()
    if found is None:
        raise NotFound("run", run_id)
    return RuntimeState(found)


def _set_state(connection: Connection, run_id: str, state: RuntimeState, problem: Problem | None) -> None:
    values: dict[str, Any] = {"state": state.value, "problem": dump_problem(problem)}
    if state.is_final:
        values["finished_at"] = now()
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(**values))
    _event(connection, run_id, state, problem)


def _event(connection: Connection, run_id: str, state: RuntimeState, problem: Problem | None) -> None:
    connection.execute(
        insert(events).values(run_id=run_id, task_id="", at=now(), state=state.value, problem=dump_problem(problem))
    )


def run_of(row: Row[Any]) -> Run:
    """Gives a row as a run."""
    return Run(
        run_id=row.run_id,
        namespace=row.namespace,
        experiment_id=row.experiment_id,
        display_name=row.display_name,
        pipeline_name=row.pipeline_name,
        spec_digest=row.spec_digest,
        parameters=load(row.parameters),
        description=row.description,
        storage_state=StorageState(row.storage_state),
        pipeline_id=row.pipeline_id,
        version_id=row.version_id,
        pipeline_root=row.pipeline_root,
        service_account=row.service_account,
        creator=row.creator,
        created_at=row.created_at,
        finished_at=row.finished_at,
        state=RuntimeState(row.state),
        problem=load_problem(row.problem),
        plugins_input=load(row.plugins_input) or {},
        pipeline_context_id=row.pipeline_context_id,
        run_context_id=row.run_context_id,
        recurring_run_id=row.recurring_run_id,
        scheduled_at=row.scheduled_at or row.created_at,
        rerun_of=row.rerun_of,
    )
