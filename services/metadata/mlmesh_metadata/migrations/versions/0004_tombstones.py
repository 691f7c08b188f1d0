"""Tombstones of deleted nodes; retention policies and plans."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "mlmesh_tombstone",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("node_id", sa.Integer, nullable=False),
        sa.Column("node_name", sa.String(255), nullable=False),
        sa.Column("deleter", sa.String(255), nullable=False),
        sa.Column("delete_time", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.UniqueConstraint("kind", "node_id"),
        mysql_charset="utf8mb4",
    )
    op.create_table(
        "mlmesh_retention_policy",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("filter", sa.Text, nullable=False),
        sa.Column("older_than_ms", sa.BigInteger, nullable=False),
        sa.Column("keep_latest", sa.Integer, nullable=False),
        sa.Column("latest_in", sa.String(255), nullable=False),
        sa.Column("include_used", sa.Boolean, nullable=False),
        sa.Column("creator", sa.String(255), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        mysql_charset="utf8mb4",
    )
    op.create_table(
        "mlmesh_retention_plan",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("creator", sa.String(255), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.BigInteger, nullable=False),
        sa.Column("apply_time", sa.BigInteger),
        sa.Column("truncated", sa.Boolean, nullable=False),
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "mlmesh_retention_item",
        sa.Column("plan_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("node_id", sa.Integer, nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("node_name", sa.String(255), nullable=False),
        sa.Column("policy", sa.String(63), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("include_used", sa.Boolean, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.SmallInteger, nullable=False),
        mysql_charset="utf8mb4",
    )
