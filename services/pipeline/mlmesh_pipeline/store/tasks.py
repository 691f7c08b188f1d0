"""Tasks, their attempts and their events in the database."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import NotFound
from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from mlmesh_pipeline.resources import (
    Attempt,
    AttemptState,
    Event,
    RuntimeState,
    Task,
    TaskKind,
    Values,
    now,
)
from mlmesh_pipeline.store.codec import dump, dump_problem, dump_values, load, load_problem, load_values
from mlmesh_pipeline.store.fence import Fence, check_fence
from mlmesh_pipeline.tables import artifacts, attempts, cache, events, outbox, tasks

_BATCH = 500
_NAME_CHARACTERS = 255


class TaskStore:
    """Tasks of runs. Every write is fenced: it counts only while the lease on the run is ours.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of_run(self, run_id: str) -> list[Task]:
        """Gives the tasks of a run, parents before children."""
        with read(self._engine) as connection:
            rows = connection.execute(select(tasks).where(tasks.c.run_id == run_id).order_by(tasks.c.position)).all()
        return [task_of(row) for row in rows]

    def get(self, run_id: str, task_id: str) -> Task:
        """Gives a task.

        Raises:
            NotFound: The run has none of this id.
        """
        with read(self._engine) as connection:
            row = connection.execute(select(tasks).where(tasks.c.run_id == run_id, tasks.c.task_id == task_id)).first()
        if row is None:
            raise NotFound("task", task_id)
        return task_of(row)

    def attempts_of(self, run_id: str) -> list[Attempt]:
        """Gives the attempts at the tasks of a run, oldest first."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.started_at, attempts.c.number)
            ).all()
        return [_attempt(row) for row in rows]

    def history(self, run_id: str) -> dict[str, list[Event]]:
        """Gives the states of the tasks of a run over time, by task id."""
        found: dict[str, list[Event]] = {}
        with read(self._engine) as connection:
            rows = connection.execute(
                select(events).where(events.c.run_id == run_id, events.c.task_id != "").order_by(events.c.event_id)
            )
            for row in rows:
                event = Event(row.at, row.task_id, RuntimeState(row.state), load_problem(row.problem))
                found.setdefault(row.task_id, []).append(event)
        return found

    def metadata_ids(self, run_id: str) -> dict[str, int]:
        """Gives the metadata store's ids of the artifacts that a run's tasks touched, by our ids."""
        with read(self._engine) as connection:
            touched = set()
            for row in connection.execute(select(tasks.c.inputs, tasks.c.outputs).where(tasks.c.run_id == run_id)):
                for text in row:
                    for items in load_values(text).artifacts.values():
                        touched |= {artifact.artifact_id for artifact in items}
            found: dict[str, int] = {}
            wanted = sorted(touched)
            for start in range(0, len(wanted), 500):
                rows = connection.execute(
                    select(artifacts.c.artifact_id, artifacts.c.metadata_id).where(
                        artifacts.c.artifact_id.in_(wanted[start : start + 500])
                    )
                )
                found |= {row.artifact_id: row.metadata_id for row in rows}
        return found

    def add(self, new: Iterable[Task], fence: Fence) -> None:
        """Adds tasks, PENDING."""
        items = list(new)

        def write(connection: Connection) -> None:
            check_fence(connection, fence)
            first = connection.execute(
                select(func.coalesce(func.max(tasks.c.position), 0)).where(tasks.c.run_id == items[0].run_id)
            ).scalar_one()
            connection.execute(
                insert(tasks),
                [{**_columns(task), "position": first + 1 + index} for index, task in enumerate(items)],
            )
            connection.execute(insert(events), [_event(task) for task in items])

        if items:
            run_transaction(self._engine, write)

    def save(self, task: Task, fence: Fence) -> None:
        """Writes a task's state, times, inputs, outputs and problem; tells the metadata store later."""
        run_transaction(self._engine, lambda connection: _save(connection, task, fence))

    def finish(self, task: Task, attempt: Attempt | None, fence: Fence, *, cache_for: str = "") -> None:
        """Writes the end of a task, of its last attempt, and the cache's entry, in one transaction.

        Args:
            task: In its final state.
            attempt: The one that decided it.
            fence: Of the run.
            cache_for: Namespace in whose cache the outputs go; empty: none.
        """

        def write(connection: Connection) -> None:
            _save(connection, task, fence)
            if attempt is not None:
                _save_attempt(connection, attempt)
            for items in task.outputs.artifacts.values() if not task.cached_from else ():
                for artifact in items:
                    known = select(artifacts.c.artifact_id).where(artifacts.c.artifact_id == artifact.artifact_id)
                    if connection.execute(known).first() is None:
                        connection.execute(
                            insert(artifacts).values(
                                artifact_id=artifact.artifact_id,
                                run_id=task.run_id,
                                task_id=task.task_id,
                                metadata_id=0,
                            )
                        )
            if cache_for and task.fingerprint:
                _remember(connection, task, cache_for)

        run_transaction(self._engine, write)

    def begin_attempt(self, attempt: Attempt, fence: Fence) -> None:
        """Adds an attempt, RUNNING."""

        def write(connection: Connection) -> None:
            check_fence(connection, fence)
            connection.execute(insert(attempts).values(**_attempt_columns(attempt)))

        run_transaction(self._engine, write)

    def save_attempt(self, attempt: Attempt, fence: Fence) -> None:
        """Writes how an attempt stands."""

        def write(connection: Connection) -> None:
            check_fence(connection, fence)
            _save_attempt(connection, attempt)

        run_transaction(self._engine, write)

    def interrupt(self, run_id: str, fence: Fence) -> None:
        """Marks attempts that a dead service left behind as INTERRUPTED."""

        def write(connection: Connection) -> None:
            check_fence(connection, fence)
            connection.execute(
                update(attempts)
                .where(attempts.c.run_id == run_id, attempts.c.state == AttemptState.RUNNING.value)
                .values(
                    state=AttemptState.INTERRUPTED.value,
                    finished_at=now(),
                    message="the service that ran it ended",
                )
            )

        run_transaction(self._engine, write)

    def artifact_ids(self, artifact_ids: list[str]) -> dict[str, int]:
        """Gives the metadata store's ids of artifacts, where they are known."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(artifacts.c.artifact_id, artifacts.c.metadata_id).where(
                    artifacts.c.artifact_id.in_(artifact_ids), artifacts.c.metadata_id != 0
                )
            ).all()
        return {row.artifact_id: row.metadata_id for row in rows}

    def execution_of(self, task_id: str) -> int:
        """Gives the metadata store's id of a task's execution; 0 where it is not known."""
        with read(self._engine) as connection:
            found = connection.execute(select(tasks.c.execution_id).where(tasks.c.task_id == task_id)).scalar()
        return int(found or 0)

    def set_metadata_ids(self, task_id: str, execution_id: int, artifact_ids: dict[str, int]) -> None:
        """Keeps the ids that the metadata store gave."""

        def write(connection: Connection) -> None:
            connection.execute(update(tasks).where(tasks.c.task_id == task_id).values(execution_id=execution_id))
            for ours, theirs in artifact_ids.items():
                connection.execute(update(artifacts).where(artifacts.c.artifact_id == ours).values(metadata_id=theirs))

        run_transaction(self._engine, write)


def reopen_tasks(connection: Connection, run_id: str, choose: Callable[[list[Task]], set[str]]) -> None:
    """Makes tasks of a run PENDING again, without their inputs, outputs and problems; their attempts stay.

    Args:
        connection: In a transaction.
        run_id: Of which run.
        choose: Given its tasks, gives the ids of those.
    """
    rows = connection.execute(select(tasks).where(tasks.c.run_id == run_id).order_by(tasks.c.position)).all()
    all_tasks = [task_of(row) for row in rows]
    chosen = choose(all_tasks)
    again = [
        replace(task, state=RuntimeState.PENDING, problem=None, started_at=0, finished_at=0, cached_from="")
        for task in all_tasks
        if task.task_id in chosen
    ]
    state = {"state": RuntimeState.PENDING.value, "problem": "", "started_at": 0, "finished_at": 0, "cached_from": ""}
    values = {**state, "inputs": "", "outputs": ""}
    for start in range(0, len(again), _BATCH):
        ids = [task.task_id for task in again[start : start + _BATCH]]
        connection.execute(update(tasks).where(tasks.c.task_id.in_(ids)).values(**values))
    if again:
        connection.execute(insert(events), [_event(task) for task in again])


def insert_tasks(connection: Connection, new: Sequence[Task]) -> None:
    """Adds the tasks that a new run begins with; tells the metadata store later of those that have ended."""
    if not new:
        return
    connection.execute(insert(tasks), [{**_columns(task), "position": 1 + at} for at, task in enumerate(new)])
    connection.execute(insert(events), [_event(task) for task in new])
    ended = [task for task in new if task.state.is_final]
    notices = [
        {"run_id": task.run_id, "task_id": task.task_id, "created_at": now(), "last_error": ""} for task in ended
    ]
    if notices:
        connection.execute(insert(outbox), notices)


def _save(connection: Connection, task: Task, fence: Fence) -> None:
    check_fence(connection, fence)
    before = connection.execute(select(tasks.c.state).where(tasks.c.task_id == task.task_id)).scalar()
    values = _columns(task)
    for fixed in ("task_id", "run_id", "path", "path_digest", "execution_id"):
        del values[fixed]
    connection.execute(update(tasks).where(tasks.c.task_id == task.task_id).values(**values))
    if before != task.state.value:
        connection.execute(insert(events).values(**_event(task)))
    connection.execute(insert(outbox).values(run_id=task.run_id, task_id=task.task_id, created_at=now(), last_error=""))


def _save_attempt(connection: Connection, attempt: Attempt) -> None:
    connection.execute(
        update(attempts).where(attempts.c.attempt_id == attempt.attempt_id).values(**_attempt_columns(attempt))
    )


def _remember(connection: Connection, task: Task, namespace: str) -> None:
    values = {
        "namespace": namespace,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "outputs": dump_values(task.outputs),
        "created_at": now(),
    }
    changed = connection.execute(update(cache).where(cache.c.fingerprint == task.fingerprint).values(**values))
    if changed.rowcount == 0:
        connection.execute(insert(cache).values(fingerprint=task.fingerprint, **values))


def _event(task: Task) -> dict[str, Any]:
    return {
        "run_id": task.run_id,
        "task_id": task.task_id,
        "at": now(),
        "state": task.state.value,
        "problem": dump_problem(task.problem),
    }


def _columns(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "run_id": task.run_id,
        "path": task.path,
        "path_digest": hashlib.sha256(task.path.encode()).hexdigest(),
        "name": task.name[:_NAME_CHARACTERS],  # an iteration's may be longer; nothing refers to it
        "display_name": task.display_name[:_NAME_CHARACTERS],
        "kind": task.kind.value,
        "parent_id": task.parent_id,
        "iteration": task.iteration,
        "state": task.state.value,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "inputs": dump_values(task.inputs),
        "outputs": dump_values(task.outputs),
        "problem": dump_problem(task.problem),
        "fingerprint": task.fingerprint,
        "cached_from": task.cached_from,
        "upstream": dump(list(task.upstream)),
        "execution_id": task.execution_id,
    }


def task_of(row: Row[Any]) -> Task:
    """Gives a row as a task."""
    return Task(
        task_id=row.task_id,
        run_id=row.run_id,
        path=row.path,
        name=row.name,
        display_name=row.display_name,
        kind=TaskKind(row.kind),
        parent_id=row.parent_id,
        iteration=row.iteration,
        state=RuntimeState(row.state),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        inputs=load_values(row.inputs) if row.inputs else Values(),
        outputs=load_values(row.outputs) if row.outputs else Values(),
        problem=load_problem(row.problem),
        fingerprint=row.fingerprint,
        cached_from=row.cached_from,
        upstream=tuple(load(row.upstream) or ()),
        execution_id=row.execution_id,
    )


def _attempt_columns(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt_id": attempt.attempt_id,
        "task_id": attempt.task_id,
        "run_id": attempt.run_id,
        "number": attempt.number,
        "state": attempt.state.value,
        "owner": attempt.owner,
        "pid": attempt.pid,
        "pid_started": attempt.pid_started,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "exit_code": attempt.exit_code,
        "message": attempt.message,
        "pod": attempt.pod,
    }


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        attempt_id=row.attempt_id,
        task_id=row.task_id,
        run_id=row.run_id,
        number=row.number,
        state=AttemptState(row.state),
        owner=row.owner,
        pid=row.pid,
        pid_started=row.pid_started,
        started_at=row.started_at,
        finished_at=row.finished_at,
        exit_code=row.exit_code,
        message=row.message,
        pod=row.pod,
    )
