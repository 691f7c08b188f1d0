"""Earlier executions of a task, over the runs of its pipeline."""

import hashlib

from mlmesh_kit.database import read
from sqlalchemy import Engine, case, or_, select

from mlmesh_pipeline.resources import Run, RuntimeState, Task, TaskKind
from mlmesh_pipeline.store.runs import run_of
from mlmesh_pipeline.store.tasks import task_of
from mlmesh_pipeline.tables import runs, tasks


class ExecutionStore:
    """Finds earlier executions.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def earlier(self, run: Run, task: Task, *, max_runs: int = 50, limit: int = 100) -> list[tuple[Run, Task]]:
        """Gives executions that a task could have had its outputs from, those at its own place first, then the newest.

        Args:
            run: Run of the task.
            task: It; only executions that began before it count.
            max_runs: How many of the newest runs of the pipeline are looked at.
            limit: How many are given.
        """
        digest = hashlib.sha256(task.path.encode()).hexdigest()
        with read(self._engine) as connection:
            rows = connection.execute(
                select(runs)
                .where(
                    runs.c.namespace == run.namespace,
                    runs.c.pipeline_name == run.pipeline_name,
                    runs.c.created_at <= task.started_at,
                )
                .order_by(runs.c.created_at.desc(), runs.c.run_id.desc())
                .limit(max_runs)
            ).all()
            known = {row.run_id: run_of(row) for row in rows}
            found = connection.execute(
                select(tasks)
                .where(
                    tasks.c.run_id.in_(list(known)),
                    tasks.c.kind == TaskKind.CONTAINER.value,
                    tasks.c.task_id != task.task_id,
                    tasks.c.fingerprint != "",
                    tasks.c.started_at <= task.started_at,
                    or_(
                        tasks.c.path_digest == digest,
                        tasks.c.name == task.name,
                        tasks.c.fingerprint == task.fingerprint,
                    ),
                    or_(tasks.c.state == RuntimeState.SUCCEEDED.value, tasks.c.cached_from != ""),
                )
                .order_by(
                    case((tasks.c.fingerprint == task.fingerprint, 0), (tasks.c.path_digest == digest, 1), else_=2),
                    tasks.c.started_at.desc(),
                )
                .limit(limit)
            ).all()
        return [(known[row.run_id], task_of(row)) for row in found]

    def by_id(self, task_id: str) -> tuple[Run, Task] | None:
        """Gives an execution with its run; None where it has been deleted."""
        with read(self._engine) as connection:
            row = connection.execute(select(tasks).where(tasks.c.task_id == task_id)).first()
            if row is None:
                return None
            run = connection.execute(select(runs).where(runs.c.run_id == row.run_id)).one()
        return run_of(run), task_of(row)
