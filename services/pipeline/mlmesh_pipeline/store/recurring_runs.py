"""Recurring runs in the database."""

from typing import Any

from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import NotFound, ResourceExhausted
from sqlalchemy import Column, Connection, Engine, Row, delete, func, insert, select, update

from mlmesh_pipeline.listing import ListQuery, Page
from mlmesh_pipeline.recurring.schedule import NEVER, Trigger
from mlmesh_pipeline.resources import Problem, RecurringRun, now
from mlmesh_pipeline.store.codec import dump, dump_problem, load, load_problem
from mlmesh_pipeline.store.listing import list_page
from mlmesh_pipeline.store.runs import ACTIVE
from mlmesh_pipeline.store.specs import get_spec, get_specs, put_spec, sizes_of
from mlmesh_pipeline.tables import recurring_runs, runs

_FIELDS = {
    "id": recurring_runs.c.recurring_run_id,
    "recurring_run_id": recurring_runs.c.recurring_run_id,
    "name": recurring_runs.c.display_name,
    "display_name": recurring_runs.c.display_name,
    "description": recurring_runs.c.description,
    "created_at": recurring_runs.c.created_at,
    "updated_at": recurring_runs.c.updated_at,
    "experiment_id": recurring_runs.c.experiment_id,
    "namespace": recurring_runs.c.namespace,
    "pipeline_id": recurring_runs.c.pipeline_id,
    "pipeline_version_id": recurring_runs.c.version_id,
}


class RecurringRunStore:
    """Recurring runs.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, recurring: RecurringRun, spec: dict[str, Any] | None, most: int) -> RecurringRun:
        """Adds a recurring run.

        Args:
            recurring: It; its digest is not looked at.
            spec: The pipeline, if it came with the request.
            most: How many a namespace may have.

        Raises:
            ResourceExhausted: The namespace has as many.
        """

        def write(connection: Connection) -> None:
            of_namespace = recurring_runs.c.namespace == recurring.namespace
            count = connection.execute(
                select(func.count()).select_from(recurring_runs).where(of_namespace)
            ).scalar_one()
            if count >= most:
                raise ResourceExhausted(
                    f"namespace {recurring.namespace!r} has {most} recurring runs; delete one first"
                )
            connection.execute(
                insert(recurring_runs).values(
                    recurring_run_id=recurring.recurring_run_id,
                    namespace=recurring.namespace,
                    experiment_id=recurring.experiment_id,
                    display_name=recurring.display_name,
                    description=recurring.description,
                    pipeline_id=recurring.pipeline_id,
                    version_id=recurring.version_id,
                    spec_digest=put_spec(connection, spec) if spec is not None else "",
                    parameters=dump(recurring.parameters),
                    pipeline_root=recurring.pipeline_root,
                    service_account=recurring.service_account,
                    creator=recurring.creator,
                    plugins_input=dump(recurring.plugins_input),
                    max_concurrency=recurring.max_concurrency,
                    no_catchup=int(recurring.no_catchup),
                    cron=recurring.trigger.cron,
                    interval_seconds=recurring.trigger.interval,
                    starts_at=recurring.trigger.start,
                    ends_at=recurring.trigger.end,
                    enabled=int(recurring.enabled),
                    created_at=recurring.created_at,
                    updated_at=recurring.created_at,
                    last_scheduled=0,
                    last_index=0,
                    next_at=recurring.next_at,
                    problem="",
                )
            )

        run_transaction(self._engine, write)
        return self.get(recurring.recurring_run_id)

    def get(self, recurring_run_id: str) -> RecurringRun:
        """Gives a recurring run.

        Raises:
            NotFound: There is none of this id.
        """
        query = select(recurring_runs).where(recurring_runs.c.recurring_run_id == recurring_run_id)
        with read(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound("recurring run", recurring_run_id)
        return _recurring(row)

    def spec(self, digest: str) -> dict[str, Any]:
        """Gives a specification by its digest."""
        with read(self._engine) as connection:
            return get_spec(connection, digest)

    def specs(self, digests: set[str]) -> dict[str, dict[str, Any]]:
        """Gives specifications by digest."""
        with read(self._engine) as connection:
            return get_specs(connection, digests)

    def page(self, namespace: str, experiment_id: str, query: ListQuery) -> Page[RecurringRun]:
        """Lists the recurring runs of a namespace, or of one of its experiments."""
        where: dict[Column[Any], str] = {recurring_runs.c.namespace: namespace}
        if experiment_id:
            where[recurring_runs.c.experiment_id] = experiment_id
        key = recurring_runs.c.recurring_run_id
        with read(self._engine) as connection:
            return list_page(
                connection,
                recurring_runs,
                _FIELDS,
                key=key,
                where=where,
                query=query,
                make=_recurring,
                weigh=lambda rows: sizes_of(connection, [row.spec_digest for row in rows]),
            )

    def set_enabled(self, recurring_run_id: str, enabled: bool, next_at: int) -> None:
        """Lets it fire, or not.

        Args:
            recurring_run_id: Which.
            enabled: Whether it fires.
            next_at: When next; seconds since the epoch.
        """
        change = update(recurring_runs).where(recurring_runs.c.recurring_run_id == recurring_run_id)
        values = {"enabled": int(enabled), "next_at": next_at, "updated_at": now()}
        run_transaction(self._engine, lambda connection: connection.execute(change.values(values)))

    def delete(self, recurring_run_id: str) -> None:
        """Deletes it; its runs stay."""
        which = recurring_runs.c.recurring_run_id == recurring_run_id
        run_transaction(self._engine, lambda connection: connection.execute(delete(recurring_runs).where(which)))

    def due(self, at: int, limit: int) -> list[RecurringRun]:
        """Gives those that are to fire, the longest due first.

        Args:
            at: Seconds since the epoch.
            limit: How many at most.
        """
        query = (
            select(recurring_runs)
            .where(recurring_runs.c.enabled == 1, recurring_runs.c.next_at <= at)
            .order_by(recurring_runs.c.next_at, recurring_runs.c.recurring_run_id)
            .limit(limit)
        )
        with read(self._engine) as connection:
            return [_recurring(row) for row in connection.execute(query)]

    def next_at(self, after: int) -> int:
        """Gives the first time after another that one is to fire; seconds since the epoch."""
        query = select(func.min(recurring_runs.c.next_at)).where(
            recurring_runs.c.enabled == 1, recurring_runs.c.next_at > after
        )
        with read(self._engine) as connection:
            found = connection.execute(query).scalar()
        return NEVER if found is None else int(found)

    def set_next(self, recurring: RecurringRun, next_at: int) -> None:
        """Says when it fires next, unless that has changed since it was read."""
        change = update(recurring_runs).where(*_as_read(recurring)).values(next_at=next_at)
        run_transaction(self._engine, lambda connection: connection.execute(change))

    def pass_over(self, recurring: RecurringRun, scheduled: int, next_at: int, problem: Problem) -> None:
        """Says that no run could be made for a time, unless another replica has dealt with it.

        Args:
            recurring: As it was read.
            scheduled: The time.
            next_at: When it fires next.
            problem: Why.
        """
        values = {"last_scheduled": scheduled, "next_at": next_at, "problem": dump_problem(problem)}
        change = update(recurring_runs).where(*_as_read(recurring)).values(values)
        run_transaction(self._engine, lambda connection: connection.execute(change))


class TooMany(Exception):
    """As many of its runs are active as may be."""


class Taken(Exception):
    """Another replica has fired it, or it was changed since it was read."""


def claim(connection: Connection, recurring: RecurringRun, scheduled: int, next_at: int) -> None:
    """Takes a time to fire, in the transaction that makes the run: so each time has one run, whoever is killed when.

    Args:
        connection: Of the transaction.
        recurring: As it was read.
        scheduled: The time.
        next_at: When it fires next.

    Raises:
        Taken: The time has a run already.
        TooMany: It has to wait for one of its runs to end.
    """
    values = {"last_scheduled": scheduled, "last_index": recurring.last_index + 1, "next_at": next_at, "problem": ""}
    if not connection.execute(update(recurring_runs).where(*_as_read(recurring)).values(values)).rowcount:
        raise Taken
    own = (runs.c.recurring_run_id == recurring.recurring_run_id, runs.c.state.in_(ACTIVE))
    if connection.execute(select(func.count()).select_from(runs).where(*own)).scalar_one() >= recurring.max_concurrency:
        raise TooMany


def _as_read(recurring: RecurringRun) -> tuple[Any, ...]:
    c = recurring_runs.c
    return (
        c.recurring_run_id == recurring.recurring_run_id,
        c.last_scheduled == recurring.last_scheduled,
        c.last_index == recurring.last_index,
        c.enabled == 1,
    )


def _recurring(row: Row[Any]) -> RecurringRun:
    return RecurringRun(
        recurring_run_id=row.recurring_run_id,
        namespace=row.namespace,
        experiment_id=row.experiment_id,
        display_name=row.display_name,
        parameters=load(row.parameters),
        trigger=Trigger(row.cron, row.interval_seconds, row.starts_at, row.ends_at),
        description=row.description,
        pipeline_id=row.pipeline_id,
        version_id=row.version_id,
        spec_digest=row.spec_digest,
        pipeline_root=row.pipeline_root,
        service_account=row.service_account,
        creator=row.creator,
        plugins_input=load(row.plugins_input) or {},
        max_concurrency=row.max_concurrency,
        no_catchup=bool(row.no_catchup),
        enabled=bool(row.enabled),
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_scheduled=row.last_scheduled,
        last_index=row.last_index,
        next_at=row.next_at,
        problem=load_problem(row.problem),
    )
