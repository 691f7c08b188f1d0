"""Recurring runs, and which of them made a run."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"


def _long() -> sa.types.TypeEngine:
    return sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "recurring_runs",
        sa.Column("recurring_run_id", sa.String(64), primary_key=True),
        sa.Column("namespace", sa.String(255), nullable=False),
        sa.Column("experiment_id", sa.String(64), nullable=False),
        sa.Column("display_name", sa.String(255), nullable=False),
        sa.Column("description", _long(), nullable=False),
        sa.Column("pipeline_id", sa.String(64), nullable=False),
        sa.Column("version_id", sa.String(64), nullable=False),
        sa.Column("spec_digest", sa.String(64), nullable=False),
        sa.Column("parameters", _long(), nullable=False),
        sa.Column("pipeline_root", sa.Text(), nullable=False),
        sa.Column("service_account", sa.String(255), nullable=False),
        sa.Column("creator", sa.String(255), nullable=False),
        sa.Column("plugins_input", _long(), nullable=False),
        sa.Column("max_concurrency", sa.Integer(), nullable=False),
        sa.Column("no_catchup", sa.Integer(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("interval_seconds", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("enabled", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("last_scheduled", sa.BigInteger(), nullable=False),
        sa.Column("last_index", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("problem", _long(), nullable=False),
    )
    op.create_index("ix_recurring_runs_due", "recurring_runs", ["enabled", "next_at"])
    op.create_index("ix_recurring_runs_created", "recurring_runs", ["namespace", "created_at", "recurring_run_id"])
    op.add_column("runs", sa.Column("recurring_run_id", sa.String(64), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("scheduled_at", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE runs SET scheduled_at = created_at")
    op.create_index("ix_runs_recurring", "runs", ["recurring_run_id", "state"])
