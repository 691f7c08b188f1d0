"""What algorithms keep, trials that are no processes, the order in which trials ended, pausing."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Without defaults: MySQL has none for TEXT.
    op.add_column("experiments", sa.Column("state", sa.Text))
    op.add_column("experiments", sa.Column("paused", sa.Boolean))
    op.add_column("trials", sa.Column("reference", sa.Text))
    op.add_column("trials", sa.Column("labels", sa.Text))
    op.add_column("trials", sa.Column("ended_order", sa.Integer))
    trials = sa.table(
        "trials",
        *(sa.column(name) for name in ("experiment_id", "number", "pid", "process_started", "reference")),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(trials).where(trials.c.pid.is_not(None))).all():
        reference = json.dumps({"pid": row.pid, "started": row.process_started})
        where = sa.and_(trials.c.experiment_id == row.experiment_id, trials.c.number == row.number)
        connection.execute(sa.update(trials).where(where).values(reference=reference))
    with op.batch_alter_table("trials") as table:
        table.drop_column("pid")
        table.drop_column("process_started")
