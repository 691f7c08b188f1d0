"""Experiments, trials, observation logs, the outbox, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("namespace", sa.String(63), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("conditions", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("completed_ms", sa.BigInteger),
        sa.UniqueConstraint("namespace", "name"),
        sqlite_autoincrement=True,  # an id is never given twice: a trial's folder is named after it
    )
    op.create_index("experiments_active", "experiments", ["active"])
    op.create_table(
        "trials",
        sa.Column("experiment_id", _ID, sa.ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(80), nullable=False, index=True),
        sa.Column("assignments", sa.Text, nullable=False),
        sa.Column("conditions", sa.Text, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("observation", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("pid", sa.Integer),
        sa.Column("process_started", sa.Float(53)),
        sa.Column("started_ms", sa.BigInteger),
        sa.Column("completed_ms", sa.BigInteger),
    )
    op.create_table(
        "observation_logs",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("trial_name", sa.String(255), nullable=False),
        sa.Column("time", sa.String(40), nullable=False),
        sa.Column("metric_name", sa.String(255), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_index("observation_logs_by_trial", "observation_logs", ["trial_name", "metric_name"])
    op.create_table(
        "outbox",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("experiment_id", _ID, nullable=False),
        sa.Column("trial_number", sa.Integer, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("key", sa.String(191), primary_key=True),
        sa.Column("owner", sa.String(191), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False, index=True),
    )
