"""What the metadata store has yet to be told."""

from dataclasses import dataclass

from mlmesh_kit.database import read, run_transaction
from sqlalchemy import Engine, delete, func, select, update

from mlmesh_pipeline.tables import outbox


@dataclass(frozen=True, slots=True)
class Notice:
    """A run, or one of its tasks, whose state has changed. `last` is the newest entry it stands for."""

    run_id: str
    task_id: str
    last: int


class OutboxStore:
    """Changes of state, kept until the metadata store has them.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def pending(self, limit: int) -> list[Notice]:
        """Gives the oldest notices; several changes of one task are one notice."""
        first = func.min(outbox.c.outbox_id)
        with read(self._engine) as connection:
            rows = connection.execute(
                select(outbox.c.run_id, outbox.c.task_id, func.max(outbox.c.outbox_id).label("last"))
                .group_by(outbox.c.run_id, outbox.c.task_id)
                .order_by(first)
                .limit(limit)
            ).all()
        return [Notice(row.run_id, row.task_id, row.last) for row in rows]

    def done(self, notice: Notice) -> None:
        """Takes a notice out; changes that came after it stay."""
        run_transaction(
            self._engine,
            lambda connection: connection.execute(
                delete(outbox).where(
                    outbox.c.run_id == notice.run_id,
                    outbox.c.task_id == notice.task_id,
                    outbox.c.outbox_id <= notice.last,
                )
            ),
        )

    def failed(self, notice: Notice, error: str) -> None:
        """Notes a try that failed."""
        run_transaction(
            self._engine,
            lambda connection: connection.execute(
                update(outbox)
                .where(outbox.c.run_id == notice.run_id, outbox.c.task_id == notice.task_id)
                .values(tries=outbox.c.tries + 1, last_error=error[:1000])
            ),
        )

    def size(self) -> int:
        """Counts the entries."""
        with read(self._engine) as connection:
            return int(connection.execute(select(func.count()).select_from(outbox)).scalar_one())
